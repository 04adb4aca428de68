"""Fixtures of the command line's tests: a sandbox per test, and a running ``iidq up`` per process."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import structlog

from iidq.cli import main
from iidq.observability import logs
from iidq.settings import Settings
from tests.cli.sandbox import Running, Sandbox, wait_until


@dataclass(frozen=True)
class Playground:
    """A running ``iidq up --port 0``, as described by the output."""

    sandbox: Sandbox
    running: Running
    api: str
    database_url: str
    rpc_url: str
    registry: str
    file: str
    manifest: str
    publish_url: str


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox for the test."""
    with Sandbox() as place:
        yield place


@pytest.fixture(scope="session")
def playground() -> Iterator[Playground]:
    """An ``iidq up`` per test process."""
    with Sandbox() as place:
        running = place.start("up", "--port", "0", POLL_INTERVAL_SECONDS="0.5", PYTHONUNBUFFERED="1")
        running.wait_until_says("Ctrl-C stops everything")
        api = printed(running, "API")

        def worker_is_known() -> bool:
            signs = httpx.get(f"{api}/readyz", trust_env=False).json().get("queue")
            return bool(signs and signs["workers"])

        # The API reports counts of up to a second ago, when its worker may not have been there.
        wait_until(worker_is_known, "a live worker")
        yield Playground(
            sandbox=place,
            running=running,
            api=api,
            database_url=printed(running, "DATABASE_URL"),
            rpc_url=printed(running, "RPC_URL"),
            registry=printed(running, "registry"),
            file=printed(running, "sample file"),
            manifest=printed(running, "manifest"),
            publish_url=running.output.partition("--publish ")[2].split()[0],
        )


def printed(running: Running, name: str) -> str:
    """The value shown by ``iidq up`` under ``name``."""
    found = re.search(rf"^  {name} +(\S+)$", running.output, re.MULTILINE)
    assert found is not None, running.output
    return found[1]


@pytest.fixture
def shell_variables(playground: Playground) -> dict[str, str]:
    """The variables of a second terminal after the printed line has been pasted."""
    line = re.search(r"^  (export API=.*)$", playground.running.output, re.MULTILINE)
    assert line is not None, playground.running.output
    shell = subprocess.run(
        ["sh", "-c", f"{line[1]}\nenv"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return dict(line.split("=", 1) for line in shell.stdout.splitlines())


@dataclass(frozen=True)
class Done:
    """Exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo the logging of a command, which would write to a closed stream in later tests."""
    monkeypatch.setattr(logs, "_debugging", logs._debugging)
    monkeypatch.setattr(logs, "_access", logs._access)
    configured = structlog.get_config()
    yield
    structlog.configure(**configured)


@pytest.fixture
def iidq(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, own_logging: None
) -> Callable[..., Done]:
    """Runs a command in this process, in an empty folder; ``iidq("stats", IIDQ_SERVER=url)`` is `iidq stats`."""
    monkeypatch.chdir(tmp_path)
    for name in [*map(str.upper, Settings.model_fields), "IIDQ_SERVER", "IIDQ_API_KEY", "IIDQ_REGISTRY"]:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, **variables: str) -> Done:
        # Drop the output of fixtures.
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["iidq", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run
