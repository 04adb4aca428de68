"""Tests on every installed version of Postgres."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from iidq.database.connections import Connection, connect
from iidq.settings import Settings, load_settings
from tests.conftest import postgres_binaries


@pytest.fixture(params=list(postgres_binaries()))
def postgres_kind(request: pytest.FixtureRequest) -> str:
    """Each version of Postgres in turn."""
    return str(request.param)


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as in psql."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings with the test's database."""
    return load_settings(database_url=database_url)


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    """A connection for the store's functions."""
    async with await connect(settings) as connection:
        yield connection


@pytest.fixture
async def rival(settings: Settings) -> AsyncIterator[Connection]:
    """A second connection, for races with the first."""
    async with await connect(settings) as connection:
        yield connection
