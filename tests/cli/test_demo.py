"""`iidq demo`: the right verdicts on real parts, and nothing left behind however it ends."""

import re
import signal
import sys
from collections.abc import Callable

import pytest

from tests.cli.sandbox import Running, Sandbox, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")


def _exists(pattern: str) -> Callable[[Sandbox, Running], bool]:
    return lambda sandbox, _running: any(sandbox.temporary.glob(pattern))


def _says(text: str) -> Callable[[Sandbox, Running], bool]:
    return lambda _sandbox, running: text in running.output


def test_two_at_once_show_every_verdict(sandbox: Sandbox) -> None:
    """Two demos at once both come to OK, WARN, FAIL and a proof, exit with 0 and leave no process and no file."""
    demos = [sandbox.start("demo"), sandbox.start("demo")]
    for demo in demos:
        assert demo.wait() == 0, demo.output
        cells = [[cell.strip() for cell in line.split("│")] for line in demo.output.splitlines() if "│" in line]
        assert [row[2] for row in cells if row[1] and row[2]] == ["OK", "WARN", "FAIL", "OK"]
        assert re.search(r'"txHash": "0x[0-9a-f]{64}"', demo.output)
        assert "Every verdict is the expected one." in demo.output
    sandbox.assert_nothing_left()


@pytest.mark.parametrize(
    ("moment", "whole_group", "signals"),
    [
        pytest.param(_exists("iidq-*/postgres/data"), False, [signal.SIGINT], id="while Postgres is made"),
        pytest.param(
            _exists("iidq-*/postgres/.s.PGSQL.*"), True, [signal.SIGHUP], id="while migrations run, terminal closed"
        ),
        pytest.param(_exists("iidq-*/api.log"), True, [signal.SIGINT, signal.SIGINT], id="while the API starts, twice"),
        pytest.param(_says("Running: "), True, [signal.SIGINT], id="while jobs run, Ctrl-C"),
        pytest.param(_says("Running: "), False, [signal.SIGINT], id="while jobs run, kill -INT"),
    ],
)
def test_interrupted_leaves_nothing(
    sandbox: Sandbox, moment: Callable[[Sandbox, Running], bool], whole_group: bool, signals: list[signal.Signals]
) -> None:
    """Ctrl-C at any moment, also an impatient one, ends the demo without a stack, a process or a file left."""
    demo = sandbox.start("demo")
    wait_until(lambda: moment(sandbox, demo) or demo.process.poll() is not None, "the moment to interrupt")
    for number in signals:
        demo.interrupt(number, whole_group=whole_group)
    # It may just have come to its end by itself.
    assert demo.wait() == 130 or "Every verdict is the expected one." in demo.output
    assert "Traceback" not in demo.output
    sandbox.assert_nothing_left()
