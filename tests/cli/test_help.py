"""What a newcomer types first, and what a bad environment gets."""

import subprocess
import sys

import pytest

from iidq.settings import settings_table
from tests.cli.sandbox import Sandbox

_NOT_FOR_HELP = {
    "coincurve",
    "eth_account",
    "eth_tester",
    "httpx",
    "psycopg",
    "pydantic",
    "starlette",
    "uvicorn",
    "web3",
    "yoyo",
}


def _imported(*command: str) -> set[str]:
    """Top-level names of all modules that ``python`` with these arguments imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, timeout=60, check=True
    )
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_help_lists_every_command(sandbox: Sandbox) -> None:
    """`iidq --help` and a bare `iidq` name all commands, none of them cut short."""
    helped, bare = sandbox.start("--help"), sandbox.start()
    assert helped.wait() == 0
    bare.wait()
    for command in (
        *("demo", "up", "serve", "worker", "migrate", "verify", "check-proof", "settings"),
        *("jobs", "stats", "pause", "resume", "doctor"),
    ):
        assert f"\n  {command} " in helped.output
        assert f"\n  {command} " in bare.output
    assert "..." not in helped.output.partition("Commands:")[2]


def test_help_loads_nothing_heavy() -> None:
    """`iidq --help` answers without loading the web, the database or anything of Ethereum's."""
    imported = _imported("-m", "iidq", "--help")
    assert "iidq" in imported
    assert imported & _NOT_FOR_HELP == set()


@pytest.mark.parametrize("module", ["iidq.web.app", "iidq.worker"])
def test_api_and_worker_do_not_load_web3(module: str) -> None:
    """The API and the worker start without web3, eth_account and eth_tester, which cost most of a second."""
    imported = _imported("-c", f"import {module}")
    assert "psycopg" in imported
    assert imported & {"web3", "eth_account", "eth_tester"} == set()


def test_settings_prints_the_table(sandbox: Sandbox) -> None:
    """`iidq settings` prints the table that the README carries."""
    running = sandbox.start("settings")
    assert running.wait() == 0
    assert running.output.strip() == settings_table()


@pytest.mark.parametrize(
    ("command", "variables", "names"),
    [
        ("serve", {"DATABASE_URL": "mysql://user:secret@db/x"}, "DATABASE_URL"),
        ("serve", {"DATABASE_URL": "postgresql://db/x"}, "RPC_URL"),
        ("serve", {}, "DATABASE_URL"),
        ("worker", {"DATABASE_URL": "postgresql://db/x", "RPC_URL": "ws://user:secret@node"}, "RPC_URL"),
        ("worker", {}, "DATABASE_URL"),
        ("migrate", {}, "DATABASE_URL"),
        ("up", {"PORT": "http"}, "PORT"),
        ("up", {"API_KEY": "secret", "API_KEY_SCOPE": "some"}, "API_KEY_SCOPE"),
        ("demo", {"JOB_LEASE_SECONDS": "0"}, "JOB_LEASE_SECONDS"),
    ],
)
def test_bad_environment_stops_the_start(sandbox: Sandbox, command: str, variables: dict[str, str], names: str) -> None:
    """A missing or bad value ends the start with exit code 2 and one line that names it and hides secrets."""
    running = sandbox.start(command, **variables)
    assert running.wait() == 2
    assert len(running.output.splitlines()) == 1
    assert names in running.output
    assert "expected" in running.output
    assert "secret" not in running.output
    sandbox.assert_nothing_left()
