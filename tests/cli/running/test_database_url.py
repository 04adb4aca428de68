"""Test a ``DATABASE_URL`` of the replaced system with every command, and a URL refused by the server."""

import json
import re
import signal
from collections.abc import Callable

import pytest

from iidq.cli.operators.diagnosis import diagnose
from iidq.cli.operators.findings import Level
from iidq.settings import Settings
from tests.cli.conftest import Done
from tests.cli.sandbox import Sandbox

PRISMA = (
    "&schema=public&connection_limit=54321&pool_timeout=2&pgbouncer=true&statement_cache_size=0&connect_timeout=15"
    "&socket_timeout=3&sslmode=prefer&sslaccept=accept_invalid_certs&single_use_connections=false"
)
IGNORED = [
    "connection_limit", "pool_timeout", "pgbouncer", "statement_cache_size", "socket_timeout", "single_use_connections",
]  # fmt: skip
SECRET = "hunter2s3cret"
# Only the server finds the fault in these.
REFUSED_BY_THE_SERVER = [
    f"options=-c%20{SECRET}=1",
    f"options=-c%20DateStyle={SECRET}",
    f"options=--{SECRET}",
    f"options=-c%20{SECRET}%5C%20{SECRET}",
    f"replication={SECRET}",
]


@pytest.mark.parametrize(
    ("command", "sign"),
    [
        ("serve", "api.serving"),
        ("worker", "worker.started"),
        ("up", "Ctrl-C stops everything"),
    ],
)
def test_a_url_of_the_replaced_system_is_used_as_it_is(
    command: str, sign: str, sandbox: Sandbox, database_url: str
) -> None:
    """The process works, and logs the ignored parameters once, without values, for any number of connections."""
    variables = {"RPC_URL": "http://127.0.0.1:9", "PORT": "0", "LOG_FORMAT": "json"}
    running = sandbox.start(command, DATABASE_URL=database_url + PRISMA, **variables)
    running.wait_until_says(sign)
    if command == "worker":
        running.wait_until_says("listener.up")
    running.process.send_signal(signal.SIGTERM)
    assert running.wait() == 0, running.output
    [line] = [line for line in running.output.splitlines() if "database.parameters_ignored" in line]
    assert json.loads(line)["names"] == IGNORED
    assert "54321" not in running.output


def test_commands_of_operators_take_it_too(iidq: Callable[..., Done], database_url: str) -> None:
    """`migrate` logs the ignored parameters, too; output for programs stays free of the log."""
    done = iidq("migrate", DATABASE_URL=database_url + PRISMA)
    assert (done.returncode, done.stderr.count("pool_timeout")) == (0, 1)
    assert "54321" not in done.stdout + done.stderr
    done = iidq("jobs", "list", "--json", DATABASE_URL=database_url + PRISMA)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == []


async def test_the_doctor_names_what_is_ignored(database_url: str) -> None:
    """The doctor's line on the database has the names of ignored parameters, without a value."""
    settings = Settings(
        _env_file=None, database_url=database_url + PRISMA, redis_url=None, ipfs_gateways=("http://[::1]:9",)
    )
    [found] = [finding for finding in await diagnose(settings) if finding.check == "database"]
    assert found.level is Level.OK
    assert found.came_back.endswith(", ".join(IGNORED))


@pytest.mark.parametrize("query", REFUSED_BY_THE_SERVER)
async def test_the_servers_words_on_a_parameter_are_not_shown(query: str, database_url: str) -> None:
    """Neither doctor nor a command repeats the server's quotation of refused ``options``."""
    url = f"{database_url}&{query}"
    settings = Settings(_env_file=None, database_url=url, redis_url=None, ipfs_gateways=("http://[::1]:9",))
    [found] = [finding for finding in await diagnose(settings) if finding.check == "database"]
    assert found.level is Level.BROKEN
    assert "FATAL" in found.came_back
    assert SECRET not in repr(found)


def test_no_command_shows_them_either(iidq: Callable[..., Done], sandbox: Sandbox, database_url: str) -> None:
    """A command ends with one line; a worker retries, and logs no part of the URL."""
    url = f"{database_url}&{REFUSED_BY_THE_SERVER[0]}"
    done = iidq("stats", DATABASE_URL=url)
    assert done.returncode == 2
    assert len((done.stdout + done.stderr).splitlines()) == 1
    assert SECRET not in done.stdout + done.stderr
    running = sandbox.start("worker", DATABASE_URL=url, RPC_URL="http://127.0.0.1:9", LOG_FORMAT="json")
    running.wait_until_says("database.lost")
    running.process.kill()
    running.wait()
    assert SECRET not in running.output
    assert re.search(r"Traceback", running.output) is None
