"""Fixtures of the command line's tests: a sandbox per test, and one running ``iidq up`` for those that only use it."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cli.sandbox import Running, Sandbox


@dataclass(frozen=True)
class Playground:
    """A running ``iidq up --port 0``, as its own output describes it."""

    sandbox: Sandbox
    running: Running
    api: str
    database_url: str
    registry: str
    file: str
    manifest: str


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A place of its own."""
    with Sandbox() as place:
        yield place


@pytest.fixture(scope="session")
def playground() -> Iterator[Playground]:
    """One ``iidq up`` per test process."""
    with Sandbox() as place:
        running = place.start("up", "--port", "0", POLL_INTERVAL_SECONDS="0.5", PYTHONUNBUFFERED="1")
        running.wait_until_says("Ctrl-C stops everything")
        yield Playground(
            sandbox=place,
            running=running,
            api=printed(running, "API"),
            database_url=printed(running, "DATABASE_URL"),
            registry=printed(running, "registry"),
            file=printed(running, "sample file"),
            manifest=printed(running, "manifest"),
        )


def printed(running: Running, name: str) -> str:
    """The value that ``iidq up`` shows under ``name``."""
    found = re.search(rf"^  {name} +(\S+)$", running.output, re.MULTILINE)
    assert found is not None, running.output
    return found[1]


@pytest.fixture
def shell_variables(playground: Playground) -> dict[str, str]:
    """What a reader of the README sets before pasting its commands."""
    return {
        "PATH": os.environ["PATH"],
        "API": playground.api,
        "REGISTRY": playground.registry,
        "FILE": playground.file,
        "MANIFEST": playground.manifest,
        "DATABASE_URL": playground.database_url,
    }
