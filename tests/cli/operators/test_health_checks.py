"""Run the containers' health checks against an available and an unavailable API and database."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from iidq.embedded.postgres import free_port
from tests.cli.conftest import Playground

ROOT = Path(__file__).parents[3]


def _check(service: str) -> list[str]:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    [_, program, *arguments] = compose["services"][service]["healthcheck"]["test"]
    assert program == "python"
    return list(arguments)


def _image_check() -> list[str]:
    found = re.search(r'CMD (\["python".*\])$', (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    command: list[str] = json.loads(found[1])
    return command[1:]


def _passes(arguments: list[str], **environment: str) -> bool:
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("arguments", [_check("api"), _image_check()], ids=["compose", "image"])
def test_api_check(playground: Playground, arguments: list[str]) -> None:
    """The API's check passes with a ready API, and fails on a closed port."""
    port = playground.api.rpartition(":")[2]
    for tried, healthy in ((port, True), (str(free_port()), False)):
        there = [argument.replace("3001", tried) for argument in arguments]
        assert _passes(there, PORT=tried) is healthy


def test_worker_check(playground: Playground, empty_database_url: str) -> None:
    """The worker's check passes with a reachable queue, and fails without a server or without the table."""
    assert _passes(_check("worker"), DATABASE_URL=playground.database_url)
    assert not _passes(_check("worker"), DATABASE_URL=empty_database_url)
    assert not _passes(_check("worker"), DATABASE_URL="postgresql://127.0.0.1:9/none")
