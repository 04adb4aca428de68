"""A Redis for each test, and settings with the test's Redis and database."""

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
    """A real server, free to be stopped and frozen."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def events() -> Iterator[Events]:
    """Return the names of the events logged so far."""
    log = io.StringIO()
    configure_logging("info", "json", log)
    yield lambda: [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    configure_logging()


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as in psql."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def accelerate(redis: RedisServer, database_url: str) -> OpenAccelerator:
    """Open one process's accelerator; several share Redis and database."""

    @asynccontextmanager
    async def accelerate(**settings: Any) -> AsyncIterator[Accelerator]:
        # A long time-out: these tests are about values, and a busy machine may be slow.
        usual: dict[str, Any] = {"database_url": database_url, "redis_url": redis.url, "redis_timeout_ms": 2000}
        async with open_accelerator(Settings(_env_file=None, **{**usual, **settings})) as accelerator:
            assert accelerator.redis is not None
            assert accelerator.key is not None
            await accelerator.redis.until_available()
            await accelerator.key.known()
            yield accelerator

    return accelerate
