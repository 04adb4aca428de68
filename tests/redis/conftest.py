"""A Redis of the test's own, and settings that name it and the test's database."""

import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
import pytest

from iidq.observability.logs import configure_logging
from iidq.redis.accelerator import Accelerator, open_accelerator
from iidq.settings import Settings
from tests.redis_server import RedisServer
from tests.web.conftest import serve_api  # noqa: F401 — a fixture

Events = Callable[[], list[str]]
OpenAccelerator = Callable[..., AbstractAsyncContextManager[Accelerator]]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A real server, to be stopped and frozen at will."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def events() -> Iterator[Events]:
    """The names of what was logged meanwhile."""
    log = io.StringIO()
    configure_logging("info", "json", log)
    yield lambda: [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    configure_logging()


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody with psql."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def accelerate(redis: RedisServer, database_url: str) -> OpenAccelerator:
    """Opens what one process has of the accelerator; several share Redis and database."""

    @asynccontextmanager
    async def accelerate(**settings: Any) -> AsyncIterator[Accelerator]:
        # These tests are about values; a busy machine may take its time.
        usual: dict[str, Any] = {"database_url": database_url, "redis_url": redis.url, "redis_timeout_ms": 2000}
        async with open_accelerator(Settings(_env_file=None, **{**usual, **settings})) as accelerator:
            assert accelerator.redis is not None
            assert accelerator.key is not None
            await accelerator.redis.until_available()
            await accelerator.key.known()
            yield accelerator

    return accelerate
