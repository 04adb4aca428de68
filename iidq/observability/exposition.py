"""The metrics as text, of one process or of all processes on a port.

Processes of ``iidq serve`` count in files of a private folder (prometheus-client's multiprocess mode), and any process
adds the files up for a scrape. A scrape also folds the files of dead processes, so sums never fall.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from iidq import __version__
from iidq.observability.metrics import REGISTRY
from iidq.observability.metrics_folder import FOLDER_VARIABLE

_FILE: Final = re.compile(r"(?P<kind>counter|histogram|gauge_live[a-z]+)_(?P<pid>\d+)\.db")
# No process has this id; it marks the counts of dead processes.
_GONE: Final = 0

_LOCK_SECONDS: Final = 2.0

ProcessCollector(registry=REGISTRY)


def exposition(accept: str, further: Iterable[Collector] = ()) -> tuple[bytes, str]:
    """Return the metrics in a format of the ``Accept`` header, and the content type.

    ``further`` collectors are added. Reads files for some milliseconds: call in a thread.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    encode, content_type = choose_encoder(accept)
    whole = CollectorRegistry()
    for collector in (_Build(), _AddedUp(Path(folder)) if folder else REGISTRY, *further):
        whole.register(collector)
    return encode(whole), content_type


class _Build(Collector):
    """The running version."""

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("iidq_build_info", "1, with the version that runs", labels=["version"])
        build.add_metric([__version__], 1)
        return [build]


class _AddedUp(Collector):
    """Sums over the files of all processes, live and dead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        with _alone_in(self._folder) as alone:
            if alone:
                _fold_the_dead(self._folder)
            # A new file is empty for a moment.
            files = [str(path) for path in self._folder.glob("*.db") if path.stat().st_size]
            found: Iterable[Metric] = MultiProcessCollector.merge(files, accumulate=True)
            return list(found)


@contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Lock the folder for the block, waiting up to 2 s; yield whether the lock was taken."""
    deadline = time.monotonic() + _LOCK_SECONDS
    with (folder / "lock").open("a") as lock:
        alone = _locked(lock)
        while not alone and time.monotonic() < deadline:
            time.sleep(0.005)
            alone = _locked(lock)
        yield alone


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _fold_the_dead(folder: Path) -> None:
    for path in sorted(folder.glob("*.db")):
        match = _FILE.fullmatch(path.name)
        if match is None or int(match["pid"]) == _GONE or _is_alive(int(match["pid"])):
            continue
        if match["kind"] in ("counter", "histogram") and path.stat().st_size:
            whole = MmapedDict(str(folder / f"{match['kind']}_{_GONE}.db"))
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
                whole.write_value(key, whole.read_value(key)[0] + value, 0.0)
            whole.close()
        # A gauge dies with its process.
        path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
