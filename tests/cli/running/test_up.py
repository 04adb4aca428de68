"""Test `iidq up`: printed values are true, dead processes are restarted, and signals end all processes."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable

import httpx
import pytest

from iidq.listening import listen
from tests.cli.conftest import Done, Playground
from tests.cli.sandbox import Sandbox, wait_until
from tests.cli.shell import curl

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")


def _only_worker(sandbox: Sandbox) -> int:
    [pid] = [pid for pid, command in sandbox.processes().items() if command.endswith("-m iidq.worker")]
    return pid


def _wait_until_ended(api: str, poll_url: str) -> dict[str, object]:
    job: dict[str, object] = {}

    def ended() -> bool:
        job.update(httpx.get(f"{api}{poll_url}", timeout=10, trust_env=False).raise_for_status().json())
        return job["status"] in ("completed", "failed")

    wait_until(ended, "the job's end")
    return job


def test_printed_curl_works_as_printed(playground: Playground) -> None:
    """The printed command, pasted unchanged, queues a job with the verdict OK."""
    printed = re.search(r"^  (curl -X POST .*?[^\\])$", playground.running.output, re.MULTILINE | re.DOTALL)
    assert printed is not None
    job = _wait_until_ended(playground.api, json.loads(curl(printed[1]))["pollUrl"])
    assert job["status"] == "completed"
    assert isinstance(job["result"], dict)
    assert job["result"]["status"] == "OK"


def test_one_line_sets_the_variables(playground: Playground, shell_variables: dict[str, str]) -> None:
    """The line for a second terminal sets every variable of the documents' commands and of the client."""
    assert (
        shell_variables.items()
        >= {
            "API": playground.api,
            "IIDQ_SERVER": playground.api,
            "DATABASE_URL": playground.database_url,
            "RPC_URL": playground.rpc_url,
            "REGISTRY": playground.registry,
            "IIDQ_REGISTRY": playground.registry,
            "FILE": playground.file,
            "MANIFEST": playground.manifest,
        }.items()
    )


def test_the_line_shows_no_url_of_the_operator(sandbox: Sandbox, playground: Playground) -> None:
    """The operator's own URLs, possibly with credentials, appear neither in the output nor in the line."""
    up = sandbox.start("up", "--port", "0", "--workers", "0", RPC_URL=playground.rpc_url.replace("//", "//me:hidden@"))
    up.wait_until_says("Ctrl-C stops everything")
    assert "hidden" not in up.output
    line = re.search(r"^  export (API=\S+ IIDQ_SERVER=\S+ DATABASE_URL=\S+)$", up.output, re.MULTILINE)
    assert line is not None, up.output


def test_killed_worker_is_started_again(playground: Playground) -> None:
    """A job submitted while the only worker is dead is done by the next worker."""
    killed = _only_worker(playground.sandbox)
    # A stopped worker cannot take the job before its end.
    os.kill(killed, signal.SIGSTOP)
    submitted = httpx.post(
        f"{playground.api}/api/verification-jobs/verify",
        json={
            "contentHash": "0x" + "ab" * 32,
            "registryAddress": playground.registry,
            "manifestURI": playground.manifest,
        },
        timeout=10,
        trust_env=False,
    )
    os.kill(killed, signal.SIGKILL)
    job = _wait_until_ended(playground.api, submitted.raise_for_status().json()["pollUrl"])
    assert job["status"] == "completed"
    assert _only_worker(playground.sandbox) != killed
    assert "worker-1 ended with code -9; starting it again" in playground.running.output


def test_sigterm_ends_it_cleanly(sandbox: Sandbox) -> None:
    """SIGTERM, as from a service manager, gives exit code 0 and leaves only the data folder."""
    kept = sandbox.folder / "kept"
    up = sandbox.start("up", "--port", "0", "--workers", "2", "--data", str(kept))
    up.wait_until_says("Ctrl-C stops everything")
    up.process.terminate()
    assert up.wait() == 0
    assert "Traceback" not in up.output
    assert (kept / "data" / "PG_VERSION").exists()
    sandbox.assert_nothing_left()


NOWHERE = {"DATABASE_URL": "postgresql://127.0.0.1:9/none", "RPC_URL": "http://127.0.0.1:9"}


def test_nothing_outlives_a_killed_one(sandbox: Sandbox) -> None:
    """After `kill -9` of `iidq up`, Postgres, the chain, the API and the worker end without help."""
    up = sandbox.start("up", "--port", "0")
    up.wait_until_says("Ctrl-C stops everything")
    assert len(sandbox.processes()) > 4
    up.process.kill()
    up.wait()
    wait_until(lambda: not sandbox.processes(), "the end of all processes")


@pytest.mark.parametrize("command", ["up", "serve"])
@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_taken_port_is_one_line(iidq: Callable[..., Done], command: str, processes: str, host: str) -> None:
    """A port used by another process is reported at once, before any start, without a traceback."""
    with listen(host, 0) as taken:
        port = str(taken.getsockname()[1])
        done = iidq(command, HOST=host, PORT=port, WEB_CONCURRENCY=processes, **NOWHERE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"iidq: PORT={port}: another process listens there on '{host}'; expected a free port (0 takes any)"
    ]


@pytest.mark.parametrize("command", ["up", "serve"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "nowhere.invalid"),
        ("HOST", "192.0.2.7"),
        ("HOST", "127.0.0.1:3001"),
        ("HOST", "[::1"),
        ("HOST", "http://127.0.0.1"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "http"),
    ],
)
def test_a_place_that_is_none_is_one_line(iidq: Callable[..., Done], command: str, name: str, value: str) -> None:
    """An unusable host or port is reported with the expected form, before any start."""
    done = iidq(command, **{name: value}, **NOWHERE)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert name in line
    assert "expected" in line
