"""Other job queues, measured in the same rounds on the same server, by a folder with its own ``bench.py``.

The program is called as ``bench.py PEER FIGURE`` with BENCH_PG_DSN, BENCH_REPEAT=1 and iidq's sizes in its environment.
It prints a line per figure: ``PEER FIGURE UNIT median X …``. Other needs of the program (interpreters, Redis) come from
the environment of the calling process.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench

_LINE = re.compile(r"^\S+\s+(?P<figure>\w+(?: p\d\d)?) \S+\s+median\s+(?P<value>[0-9.]+)", re.MULTILINE)
# The peers' figure and line → iidq's figure.
_THEIRS: Mapping[str, tuple[str, str]] = {
    "enqueue16": ("one", "one"),
    "drain1": ("drain1", "drain1"),
    "drain2": ("drain2", "drain2"),
    "latency_p50_ms": ("latency", "latency p50"),
    "latency_p99_ms": ("latency", "latency p99"),
    "history": ("history", "history"),
    "horizon": ("horizon", "horizon"),
}
# Only these peers keep finished rows in the jobs' table.
_KEEP_HISTORY = {"procrastinate", "chancy", "oban", "pg_boss"}
_WITHOUT_POSTGRES = {"bullmq"}


class PeerFailed(Exception):
    """The peer's program ended badly or printed no figure."""


@dataclass(frozen=True, slots=True)
class PeerFigure:
    """A figure of ``peer``, with ``name`` PEER.FIGURE; ``ours`` is the figure of iidq to compare with, in the same
    ``unit``.
    """

    name: str
    unit: str
    peer: str
    ours: str


class Peers:
    """The chosen peers; each measures a figure right after iidq."""

    def __init__(self, folder: Path | None, names: Sequence[str], bench: Bench, figures: Sequence[str]) -> None:
        self._folder = folder
        self._bench = bench
        self.figures = [
            PeerFigure(f"{peer}.{ours}", "ms" if ours.endswith("_ms") else "jobs/s", peer, ours)
            for ours in figures
            if ours in _THEIRS
            for peer in names
            if not (ours == "history" and peer not in _KEEP_HISTORY)
            if not (ours == "horizon" and peer in _WITHOUT_POSTGRES)
        ]

    def measure(self, ours: Mapping[str, float]) -> Iterator[tuple[str, float]]:
        """Yield every peer's figures that compare with the given figures of iidq."""
        found: dict[tuple[str, str], Mapping[str, float]] = {}
        for figure in self.figures:
            if figure.ours in ours:
                theirs, line = _THEIRS[figure.ours]
                if (figure.peer, theirs) not in found:
                    found[figure.peer, theirs] = self._call(figure.peer, theirs)
                yield figure.name, found[figure.peer, theirs][line]

    def _call(self, peer: str, figure: str) -> Mapping[str, float]:
        options = self._bench.options
        environment = {
            "BENCH_PYTHON": sys.executable,
            **os.environ,
            "BENCH_PG_DSN": self._bench.server.url,
            "BENCH_REPEAT": "1",
            "BENCH_JOBS": str(options.jobs),
            "BENCH_ONE_JOBS": str(options.enqueue_jobs),
            "BENCH_HISTORY": str(options.history_rows),
            "BENCH_LIMIT_S": str(round(options.limit_seconds)),
        }
        done = subprocess.run(
            [environment["BENCH_PYTHON"], "bench.py", peer, figure],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        values = {match["figure"]: float(match["value"]) for match in _LINE.finditer(done.stdout)}
        if done.returncode or not values:
            raise PeerFailed(f"{peer} {figure}: {(done.stderr or done.stdout).strip()[-1000:]}")
        return values
