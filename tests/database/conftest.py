"""These tests run on every Postgres that is found."""

import pytest

from tests.conftest import postgres_binaries


@pytest.fixture(params=list(postgres_binaries()))
def postgres_kind(request: pytest.FixtureRequest) -> str:
    """Each version of Postgres in turn."""
    return str(request.param)
