"""Help, completion, the table of settings, and errors of a bad environment."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from iidq.settings import settings_table
from tests.cli.conftest import Done
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


def iidq_program() -> str:
    """Return the path of the installed ``iidq``."""
    return str(Path(sys.executable).with_name("iidq"))


def _imported(*command: str) -> set[str]:
    """Return the top-level names of all modules imported by ``python`` with these arguments."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, timeout=60, check=True
    )
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_help_lists_every_command(sandbox: Sandbox) -> None:
    """`iidq --help` and a bare `iidq` name all commands without cutting the text short."""
    helped, bare = sandbox.start("--help"), sandbox.start()
    assert helped.wait() == 0
    bare.wait()
    for command in (
        *("demo", "up", "serve", "worker", "migrate", "verify", "check-proof", "register", "settings"),
        *("jobs", "stats", "pause", "resume", "doctor"),
    ):
        assert f"\n  {command} " in helped.output
        assert f"\n  {command} " in bare.output
    assert "..." not in helped.output.partition("Commands:")[2]


def test_help_loads_nothing_heavy() -> None:
    """`iidq --help` loads no module for web, database or Ethereum."""
    imported = _imported("-m", "iidq", "--help")
    assert "iidq" in imported
    assert imported & _NOT_FOR_HELP == set()


@pytest.mark.parametrize("module", ["iidq.web.app", "iidq.worker"])
def test_api_and_worker_do_not_load_web3(module: str) -> None:
    """The API and the worker start without web3, eth_account and eth_tester, because these cost most of a second."""
    imported = _imported("-c", f"import {module}")
    assert "psycopg" in imported
    assert imported & {"web3", "eth_account", "eth_tester"} == set()


@pytest.mark.parametrize(
    "command", ["verify", "register", "check-proof", "stats", "pause", "doctor", "jobs list", "jobs watch"]
)
def test_help_has_examples_that_parse(iidq: Callable[..., Done], command: str) -> None:
    """Every command accepts the examples in its help."""
    told = iidq(*command.split(), "--help").stdout
    examples = re.findall(r"(?:^ {4}|Example: )(?:[A-Z_]+=\S+ )*iidq (.+)$", told, re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example)
        assert words[: len(command.split())] == command.split()
        assert iidq(*words, "--help").returncode == 0


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("iidq re", {"register", "resume"}), ("iidq jobs list --status c", {"completed", "cancelled"})],
)
def test_shells_complete(sandbox: Sandbox, typed: str, offered: set[str]) -> None:
    """Bash completes commands and values; `--show-completion` prints the script for bash."""
    words = typed.split()
    completing = sandbox.start(
        _IIDQ_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1), COMP_LINE=typed
    )
    assert completing.wait() == 0
    assert set(completing.output.split()) == offered
    shown = sandbox.start_program(
        "bash", "-c", f"{iidq_program()} --show-completion; exit $?", HOME=str(sandbox.working)
    )
    assert (shown.wait(), "_IIDQ_COMPLETE=complete_bash" in shown.output) == (0, True)


def test_settings_prints_the_table(sandbox: Sandbox) -> None:
    """`iidq settings` prints the table of all settings."""
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
    """A missing or bad value ends the start with exit code 2 and one line with the variable's name, without secrets."""
    running = sandbox.start(command, **variables)
    assert running.wait() == 2
    assert len(running.output.splitlines()) == 1
    assert names in running.output
    assert "expected" in running.output
    assert "secret" not in running.output
    sandbox.assert_nothing_left()
