"""Metrics: bounded labels for any input, and the files of ended processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from iidq.errors import AttemptTimedOut, IidqError
from iidq.observability import metrics
from iidq.observability.exposition import exposition
from iidq.observability.metrics_folder import FOLDER_VARIABLE
from iidq.observability.steps import step
from tests.exposition_format import samples, value


def labels_of(name: str, label: str) -> set[str]:
    return {sample.labels[label] for sample in samples(exposition("")[0].decode()) if sample.name == name}


@given(st.text(max_size=20))
def test_methods_are_few(method: str) -> None:
    """A method unknown to HTTP counts as other."""
    metrics.request_served(method, "/test", 200, 0.001)
    known = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
    assert labels_of("iidq_http_requests_total", "method") <= known


@given(st.text(max_size=20))
def test_upstream_errors_are_few(code: str) -> None:
    """The foreign part of an error's code never becomes a label."""
    before = labels_of("iidq_upstream_errors_total", "error") | {"other", "timeout"}
    metrics.upstream_failed("web", f"fetch.x{code}")
    metrics.upstream_failed("web", "fetch.timeout")
    assert labels_of("iidq_upstream_errors_total", "error") == before | {"timeout"}


def test_a_step_that_fails_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed step is timed, too."""
    timed: list[str] = []
    monkeypatch.setattr(metrics, "step_ended", lambda name, seconds: timed.append(name))
    with pytest.raises(IidqError), step("manifest"):
        raise AttemptTimedOut("late")
    assert timed == ["manifest"]


def _count_in(folder: Path, pid: int, name: str, amount: float, kind: str = "counter") -> None:
    book = MmapedDict(str(folder / f"{kind}_{pid}.db"))
    book.write_value(mmap_key(name, f"{name}_total", ["a"], ["x"], "help"), amount, 0.0)
    book.close()


@pytest.fixture
def dead() -> int:
    """Return the id of an ended process."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_the_dead_are_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: int) -> None:
    """Counts of ended processes stay in the sum, in a single file; their gauges are removed."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    parent = int(Path("/proc/self/stat").read_text().split()[3])
    _count_in(tmp_path, parent, "iidq_x", 2)
    _count_in(tmp_path, dead, "iidq_x", 5)
    _count_in(tmp_path, dead, "iidq_y", 7)
    _count_in(tmp_path, dead, "iidq_z", 1, kind="gauge_livesum")
    (tmp_path / f"histogram_{parent}.db").touch()
    for _ in range(2):
        text = exposition("")[0].decode()
        assert (value(text, "iidq_x_total", a="x"), value(text, "iidq_y_total")) == (7, 7)
        assert "iidq_z" not in text
    assert {path.name for path in tmp_path.glob("counter*")} == {f"counter_{parent}.db", "counter_0.db"}
    assert not list(tmp_path.glob(f"*_{dead}.db"))


def test_the_folder_is_private_and_goes() -> None:
    """The metrics folder is open to its owner alone, and is removed at the end; the environment is as before."""
    code = (
        "import json, os\nfrom iidq.observability.metrics_folder import FOLDER_VARIABLE, counted_together\n"
        "with counted_together():\n    folder = os.environ[FOLDER_VARIABLE]\n"
        "    mode = os.stat(folder).st_mode & 0o777\n"
        "print(json.dumps([mode, os.path.exists(folder), FOLDER_VARIABLE in os.environ]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [0o700, False, False]


def test_an_attempt_that_never_began_has_no_duration() -> None:
    """A job released before its start counts as released, and adds no duration."""
    counted = ("iidq_attempts_total", {"outcome": "released"})
    timed = "iidq_attempt_duration_seconds_count"
    before = metrics.REGISTRY.get_sample_value(*counted) or 0.0, metrics.REGISTRY.get_sample_value(timed)
    metrics.attempts_ended([("released", None)])
    assert (metrics.REGISTRY.get_sample_value(*counted), metrics.REGISTRY.get_sample_value(timed)) == (
        before[0] + 1,
        before[1],
    )
