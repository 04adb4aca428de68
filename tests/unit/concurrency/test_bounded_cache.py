"""The memory cache, lifetimes of values, and shared fetches."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.concurrency.bounded_cache import BoundedCache
from iidq.concurrency.single_flight import SingleFlight
from iidq.guarded_http.fetch import MAX_FRESH_SECONDS, fresh_seconds


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4000)), max_size=40))
def test_the_cache_holds_the_latest_that_fit(puts: list[tuple[int, int]]) -> None:
    """The cache holds the latest value of a key and no other value, within its bound."""
    cache: BoundedCache[bytes] = BoundedCache(10_000, len)
    latest: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, bytes(size))
        latest[key] = size
        assert cache.get(key) == bytes(size)
        kept = [(other, found) for other in range(10) if (found := cache.get(other)) is not None]
        assert all(len(found) == latest[other] for other, found in kept)
        assert sum(len(found) for _, found in kept) <= 10_000


def test_the_least_recently_used_goes_first() -> None:
    """Reading a value keeps the value; a value larger than the cache is not kept."""
    cache: BoundedCache[bytes] = BoundedCache(10_000, len)
    for key in "abc":
        cache.put(key, bytes(3000))
    cache.get("a")
    cache.put("d", bytes(3000))
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]
    cache.put("a", bytes(10_001))
    assert cache.get("a") is None


def test_an_entry_with_an_end_ends() -> None:
    """An entry with an end is found before the end, and not after."""
    now = 0.0
    cache: BoundedCache[bytes] = BoundedCache(10_000, len, clock=lambda: now)
    cache.put("a", b"x", for_seconds=5)
    now = 4.9
    assert cache.get("a") == b"x"
    now = 5.0
    assert cache.get("a") is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"cache-control": "max-age=30"}, 30),
        ({"cache-control": "public, Max-Age=30"}, 30),
        ({"cache-control": "max-age=30, s-maxage=5"}, 5),
        ({"cache-control": "max-age=31536000, immutable"}, MAX_FRESH_SECONDS),
        ({"cache-control": "max-age=30", "age": "20"}, 10),
        ({"cache-control": "max-age=30", "age": "40"}, 0),
        ({"cache-control": "max-age=30, private"}, 0),
        ({"cache-control": 'private="set-cookie", max-age=30'}, 0),
        ({"cache-control": "no-store, max-age=30"}, 0),
        ({"cache-control": "no-cache, max-age=30"}, 0),
        ({"cache-control": "max-age=30", "vary": "*"}, 0),
        ({"cache-control": "max-age=-1"}, 0),
        ({"cache-control": "max-age=soon"}, 0),
        ({"expires": "Wed, 21 Oct 2099 07:28:00 GMT"}, 0),
    ],
)
def test_answers_are_kept_as_their_headers_allow(headers: dict[str, str], seconds: float) -> None:
    """Only an explicit lifetime counts, at most a minute; an answer marked private or no-store is not kept."""
    assert fresh_seconds(headers) == seconds


async def test_callers_at_the_same_time_share_one_run() -> None:
    """Simultaneous callers share a run and its result, and the next caller starts a new run."""
    flights: SingleFlight[str, int] = SingleFlight()
    release = asyncio.Event()
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        run = runs
        await release.wait()
        return run

    waiting = [asyncio.create_task(flights.run("key", work)) for _ in range(5)]
    other = asyncio.create_task(flights.run("other", work))
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*waiting) == [1] * 5
    assert await other == 2
    assert await flights.run("key", work) == 3


async def test_errors_are_shared_and_not_kept() -> None:
    """All waiting callers get the error; the next caller tries again."""
    flights: SingleFlight[str, int] = SingleFlight()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise LookupError

    async def succeed() -> int:
        return 1

    results = await asyncio.gather(*(flights.run("key", fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 3
    assert await flights.run("key", succeed) == 1


async def test_the_run_goes_on_when_its_first_caller_leaves_and_ends_when_all_have_left() -> None:
    """A cancelled caller does not end the shared run; the last caller to leave ends the run."""
    flights: SingleFlight[str, int] = SingleFlight()
    started, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> int:
        started.set()
        try:
            await release.wait()
        finally:
            ended.set()
        return 7

    first = asyncio.create_task(flights.run("key", work))
    second = asyncio.create_task(flights.run("key", work))
    await started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not ended.is_set()
    release.set()
    assert await second == 7

    for event in (started, release, ended):
        event.clear()
    last = asyncio.create_task(flights.run("key", work))
    await started.wait()
    last.cancel()
    with pytest.raises(asyncio.CancelledError):
        await last
    assert ended.is_set()
