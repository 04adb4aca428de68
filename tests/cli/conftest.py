"""Fixtures for the command line: a sandbox per test, and a running ``iidq up`` per process."""

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
    """The home of the process."""
    running: Running
    """The process."""
    api: str
    """The base URL of the API."""
    database_url: str
    """The connection string of its Postgres."""
    rpc_url: str
    """The RPC URL of its chain."""
    registry: str
    """The address of its registry."""
    file: str
    """The path of the sample file."""
    manifest: str
    """The URI of the manifest of the sample file."""
    publish_url: str
    """The URL for ``iidq register --publish``."""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Create a sandbox for the test."""
    with Sandbox() as place:
        yield place


@pytest.fixture(scope="session")
def playground() -> Iterator[Playground]:
    """Start one ``iidq up`` per test process."""
    with Sandbox() as place:
        running = place.start("up", "--port", "0", POLL_INTERVAL_SECONDS="0.5", PYTHONUNBUFFERED="1")
        running.wait_until_says("Ctrl-C stops everything")
        api = printed(running, "API")

        def worker_is_known() -> bool:
            signs = httpx.get(f"{api}/readyz", trust_env=False).json().get("queue")
            return bool(signs and signs["workers"])

        # The API reports counts up to a second old, possibly from before the start of the worker.
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
    """Return the value printed by ``iidq up`` under ``name``."""
    found = re.search(rf"^  {name} +(\S+)$", running.output, re.MULTILINE)
    assert found is not None, running.output
    return found[1]


@pytest.fixture
def shell_variables(playground: Playground) -> dict[str, str]:
    """Return the variables of a second terminal after the printed line has been pasted."""
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
    """The exit code."""
    stdout: str
    """The text on standard output."""
    stderr: str
    """The text on standard error."""


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo the logging setup of a command; later tests would log to a closed stream."""
    monkeypatch.setattr(logs, "_debugging", logs._debugging)
    monkeypatch.setattr(logs, "_access", logs._access)
    configured = structlog.get_config()
    yield
    structlog.configure(**configured)


@pytest.fixture
def iidq(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, own_logging: None
) -> Callable[..., Done]:
    """Run a command in this process, in an empty folder; ``iidq("stats", IIDQ_SERVER=url)`` is `iidq stats`."""
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
