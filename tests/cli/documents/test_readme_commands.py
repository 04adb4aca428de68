"""Run the README's commands unchanged against a running `iidq up`."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from string import Template

import psycopg
import pytest

from tests.cli.conftest import Done, Playground
from tests.cli.sandbox import wait_until
from tests.cli.shell import curl

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, block in _BLOCK.findall(README)
    if language == "sh"
    for line in block.splitlines()
    if line.startswith("curl ")
]
STATEMENTS = [
    statement.strip()
    for language, block in _BLOCK.findall(README)
    if language == "sql"
    for statement in block.split(";")
    if statement.strip()
]
_FUTURE_JOB = """
  INSERT INTO "VerificationJob"(type, "contentHash", "manifestUri", "registryAddress", "runAt")
  VALUES ('verify', '0x' || repeat('a', 64), 'ipfs://x', '0x' || repeat('b', 40), now() + interval '1 day') RETURNING id
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_curl(playground: Playground, shell_variables: dict[str, str], command: str) -> None:
    """Every `curl` of the README gets a JSON reply without an error."""
    if "$JOB" in command:
        with psycopg.connect(playground.database_url, autocommit=True) as connection:
            # A waiting job can be cancelled, a cancelled job retried.
            row = connection.execute(_FUTURE_JOB.encode()).fetchone()
            assert row is not None
            shell_variables["JOB"] = str(row[0])
            if command.endswith('/retry"'):
                # A worker would fail the job again before the reply, because no manifest exists at its address.
                connection.execute("SELECT cancel_job(%s), pause_queue('for the reply')", row)
    reply = json.loads(curl(command, shell_variables))
    if "/pause" in command or "/retry" in command:
        curl(next(resume for resume in COMMANDS if "/resume" in resume), shell_variables)
    assert "error" not in reply or reply["error"] is None
    assert {"jobId", "jobs", "available", "status", "version", "paused"} & reply.keys()


def test_iidq(
    playground: Playground, shell_variables: dict[str, str], iidq: Callable[..., Done], tmp_path: Path
) -> None:
    """Every `iidq` of the README's paragraph on the command line works against a running service."""
    (tmp_path / "photos").mkdir()
    shutil.copy(playground.file, tmp_path / "photos")
    paragraph = README.partition("## On the command line")[2].partition("```sh\n")[2].partition("```")[0]
    environment = {"IIDQ_SERVER": playground.api, "IIDQ_REGISTRY": playground.registry}
    commands = [line for line in paragraph.splitlines() if line.startswith("iidq ")]
    assert len(commands) == 5
    for command in commands:
        # The example's web site does not exist.
        line = re.sub(
            r"https://example\.org/\S+?(?=\")", playground.manifest, Template(command).substitute(shell_variables)
        )
        done = iidq(*shlex.split(line, comments=True)[1:], **environment)
        assert (done.returncode, done.stderr) == (0, ""), done


def test_sql(playground: Playground) -> None:
    """Every SQL statement of the README runs, and the inserted job gets its verdict."""
    assert len(STATEMENTS) == 3
    manifest = re.compile(r"ipfs://\w+")
    with psycopg.connect(playground.database_url, autocommit=True) as connection:
        for statement in STATEMENTS:
            if not statement.startswith("INSERT"):
                connection.execute(statement.encode())
        [insert] = [statement for statement in STATEMENTS if statement.startswith("INSERT")]
        # The registry's address and the file's hash never change; the manifest holds its creation time.
        inserted = connection.execute(f"{manifest.sub(playground.manifest, insert)} RETURNING id".encode()).fetchone()
        assert inserted is not None

        def verdict() -> object:
            query = """SELECT result->>'status' FROM "VerificationJob" WHERE id = %s"""
            row = connection.execute(query, inserted).fetchone()
            return row and row[0]

        wait_until(lambda: verdict() is not None, "the verdict of the inserted job")
        assert verdict() == "OK"
