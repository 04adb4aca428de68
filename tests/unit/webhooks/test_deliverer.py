"""The deliverer's loop, without a database."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from iidq.database.faults import Faults
from iidq.settings import Settings
from iidq.webhooks import deliverer
from iidq.webhooks.deliverer import Deliverer


async def test_an_unexpected_error_is_followed_by_a_pause_of_the_poll_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug in the search for due deliveries does not make the search more frequent than its polls."""
    database: Any = SimpleNamespace(faults=Faults())
    sender: Any = None
    loop = Deliverer(Settings(poll_interval_seconds=200), database, sender, (), lambda _job: {})
    pauses: list[float] = []

    async def crash() -> None:
        raise LookupError

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        loop._stopping = True

    monkeypatch.setattr(loop, "_start_due", crash)
    monkeypatch.setattr(deliverer, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    with capture_logs() as logged:
        await loop.run()
    assert [line["event"] for line in logged] == ["webhooks.crashed"]
    assert len(pauses) == 1
    assert 60 <= pauses[0] <= 200
