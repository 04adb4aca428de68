"""Test `iidq demo`: the right verdicts on real parts, and no process or file left after any end."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.progress import Progress
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from iidq.cli.api_client import JOBS_PATH, NoAnswer
from iidq.cli.running.demo import Case
from iidq.cli.running.demo import demo as run_demo
from iidq.embedded.endpoint import serve_locally
from iidq.embedded.stack import Stack
from tests.cli.sandbox import Running, Sandbox, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")


def _exists(pattern: str) -> Callable[[Sandbox, Running], bool]:
    return lambda sandbox, _running: any(sandbox.temporary.glob(pattern))


def _says(text: str) -> Callable[[Sandbox, Running], bool]:
    return lambda _sandbox, running: text in running.output


def _proof_of(demo: Running) -> Path:
    path = re.search(r"^The proof is in (\S+\.json)$", demo.output, re.MULTILINE)
    assert path is not None, demo.output
    return Path(path[1])


def test_two_at_once_show_every_verdict(sandbox: Sandbox) -> None:
    """Two demos at once both give OK, WARN, FAIL and a proof; no process and no file but the proofs is left."""
    demos = [sandbox.start("demo"), sandbox.start("demo")]
    for demo in demos:
        assert demo.wait() == 0, demo.output
        cells = [[cell.strip() for cell in line.split("│")] for line in demo.output.splitlines() if "│" in line]
        assert [row[2] for row in cells if row[1] and row[2]] == ["OK", "WARN", "FAIL", "OK"]
        assert "Every verdict is the expected one." in demo.output
        # Parts, table, proof and next steps fit on one screen.
        assert len(demo.output.splitlines()) < 40
        proof = _proof_of(demo)
        assert re.fullmatch("0x[0-9a-f]{64}", json.loads(proof.read_text())["tx"]["txHash"])
        check, up = re.findall(r"^  (\S.*iidq (?:check-proof|up).*)$", demo.output, re.MULTILINE)
        assert "http://127.0.0.1:3001/" in demo.output.partition(up)[2]
        # The printed next step works unchanged.
        subprocess.run(["sh", "-c", check], check=True, capture_output=True, timeout=60)
        proof.unlink()
    sandbox.assert_nothing_left()


def test_a_wrong_verdict_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_logging: None
) -> None:
    """An unexpected verdict is reported, and the demo ends with exit code 1 and without a proof."""
    module = import_module("iidq.cli.running.demo")
    real_cases = module._cases

    async def other_cases(stack: Stack) -> list[Case]:
        return [replace(case, expected="OK") for case in await real_cases(stack)]

    monkeypatch.setattr(module, "_cases", other_cases)
    assert asyncio.run(run_demo()) == 1
    said = capsys.readouterr().out
    assert "Not every verdict is right." in said
    assert "The proof is in" not in said


async def _run_case(folder: Path, job: dict[str, Any], events: bytes) -> Any:
    """Run a case of the demo against a service with this job and this stream of events."""

    async def submit(request: Request) -> Response:
        await request.body()
        return JSONResponse({"jobId": "j"})

    async def stream(_request: Request) -> Response:
        return Response(events, media_type="text/event-stream")

    async def show(_request: Request) -> Response:
        return JSONResponse(job)

    path = folder / "sound.wav"
    path.write_bytes(b"sound")
    routes = [
        Route(f"{JOBS_PATH}/verify", submit, methods=["POST"]),
        Route(f"{JOBS_PATH}/j/events", stream),
        Route(f"{JOBS_PATH}/j", show),
    ]
    async with serve_locally(Starlette(routes=routes)) as url:
        stack = SimpleNamespace(api_url=url, registry="0x")
        run = import_module("iidq.cli.running.demo")._run
        return await run(stack, Case("sound", "verify", path, "ipfs://x", "OK"), Progress(disable=True))


@pytest.mark.parametrize(
    "events", [b"", b'event: progress\ndata: {"status": "proc', b"data: []\n\n"], ids=["empty", "cut off", "foreign"]
)
async def test_events_that_break_do_not_stop_the_demo(tmp_path: Path, events: bytes) -> None:
    """Without usable events the job is polled to its end."""
    job = {"id": "j", "status": "completed", "progress": 100, "result": {"status": "OK"}}
    assert await _run_case(tmp_path, job, events) == job


async def test_a_job_without_an_end_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for a job the demo gives up."""
    monkeypatch.setattr(import_module("iidq.cli.running.demo"), "_JOB_TIMEOUT_SECONDS", 0.2)
    job = {"id": "j", "status": "processing", "progress": 10}
    with pytest.raises(NoAnswer, match=r"gave up after 0\.2 s"):
        await _run_case(tmp_path, job, b'event: progress\ndata: {"status": "processing", "progress": 10}\n\n')


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
    """An interrupted demo leaves no traceback, process or file, at any moment and after repeated Ctrl-C."""
    demo = sandbox.start("demo")
    wait_until(lambda: moment(sandbox, demo) or demo.process.poll() is not None, "the moment to interrupt")
    for number in signals:
        demo.interrupt(number, whole_group=whole_group)
    # The demo may have ended just before.
    assert demo.wait() == 130 or "Every verdict is the expected one." in demo.output
    assert "Traceback" not in demo.output
    if "The proof is in" in demo.output:
        _proof_of(demo).unlink()
    sandbox.assert_nothing_left()
