"""Test ``--json``: standard output is for programs, even after a failure."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Done, Playground

Iidq = Callable[..., Done]
NOWHERE = "http://127.0.0.1:9"
ADDRESS = "0x" + "11" * 20
UNKNOWN = "0198c1d2-0000-7000-8000-000000000000"


def holds_json_or_nothing(text: str) -> bool:
    """Return whether a program can read ``text``."""
    return text == "" or isinstance(json.loads(text), dict | list)


@pytest.mark.parametrize("job_id", [UNKNOWN, "../stats"])
@pytest.mark.parametrize("way", ["database", "service"])
@pytest.mark.parametrize(("command", "code"), [("show", 1), ("watch", 2)])
def test_an_unknown_job_is_a_complaint(
    iidq: Iidq, playground: Playground, job_id: str, way: str, command: str, code: int
) -> None:
    """An unknown id leaves standard output empty; ``watch`` ends with the code for "no verdict", not for FAIL."""
    there = {"DATABASE_URL": playground.database_url} if way == "database" else {"IIDQ_SERVER": playground.api}
    for options in ([], ["--json"]):
        done = iidq("jobs", command, job_id, *options, **there)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", f"iidq: there is no job {job_id}\n")


@pytest.mark.parametrize(
    "command",
    [
        ["stats", "--server", NOWHERE],
        ["jobs", "list", "--server", NOWHERE],
        ["jobs", "show", UNKNOWN, "--server", NOWHERE],
        ["jobs", "watch", UNKNOWN, "--timeout", "0.2", "--server", NOWHERE],
        ["doctor", "--server", NOWHERE],
        ["verify", "a.txt", "--manifest", "https://example.org/m", "--registry", ADDRESS, "--server", NOWHERE],
        ["verify", "a.txt", "b.txt", "--manifest", "https://a.org/{name}", "--registry", ADDRESS, "--server", NOWHERE],
        ["verify", "missing.txt", "--manifest", "https://example.org/m", "--registry", ADDRESS, "--server", NOWHERE],
        ["check-proof", "a.txt"],
        ["register", "a.txt", "--rpc-url", NOWHERE, "--registry", ADDRESS, "--manifest", "https://example.org/m"],
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_a_failure_leaves_nothing_but_json(iidq: Iidq, command: list[str]) -> None:
    """A failed command writes the reason to standard error; standard output holds JSON or nothing."""
    for name in ("a.txt", "b.txt"):
        Path(name).write_text("a file")
    done = iidq(*command, "--json", RPC_URL=NOWHERE)
    assert done.returncode not in (0, 3)
    assert holds_json_or_nothing(done.stdout)
    assert done.stdout or done.stderr
    assert "Traceback" not in done.stderr
