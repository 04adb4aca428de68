"""The sliding minute, and its sharing among processes."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.database.faults import Faults
from iidq.errors import DatabaseUnavailable
from iidq.rate_window import BUCKET_SECONDS, WINDOW_SECONDS, KeyedCount
from iidq.settings import Settings
from iidq.web.guard.rate_limits import (
    Decision,
    RateLimits,
    SharedClock,
    SlidingWindow,
    rate_limit_headers,
)
from iidq.web.guard.rate_sharing import RateSharing

START = 1_800_000_000.0
limits = st.integers(1, 20)
pauses = st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=100)


class Counts:
    """Shared counts in memory, as kept by Postgres; ``away`` makes the counts unreachable."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[bytes, int]] = Counter()
        self.away = False

    async def add(self, additions: Sequence[KeyedCount], *, since_bucket: int) -> tuple[list[KeyedCount], float | None]:
        if self.away:
            raise DatabaseUnavailable("away")
        for key, step, requests in additions:
            self.counts[key, step] += requests
        keys = {addition.key for addition in additions}
        known = [KeyedCount(key, step, n) for (key, step), n in self.counts.items() if key in keys]
        return [count for count in known if count.bucket > since_bucket], None

    async def purge(self, *, before_bucket: int) -> None:
        for key, step in list(self.counts):
            if step < before_bucket:
                del self.counts[key, step]


class FixedClock(SharedClock):
    def __init__(self) -> None:
        super().__init__()
        self.time = START

    def now(self) -> float:
        return self.time


class Process:
    """An API process' view of a client."""

    def __init__(self, shared: Counts, clock: SharedClock, limit: int) -> None:
        self.limits = limits_of(rate_limit_read_per_minute=limit)
        self.sharing = RateSharing(self.limits, clock, shared, Faults())
        self._clock = clock

    def ask(self) -> Decision:
        verdict = self.limits.admit("read", "203.0.113.9", False, self._clock.now())
        assert verdict is not None
        return verdict


def limits_of(**settings: int) -> RateLimits:
    return RateLimits(Settings(_env_file=None, **settings))  # type: ignore[arg-type]


@given(limits, pauses)
def test_no_minute_holds_more_than_the_limit(limit: int, gaps: list[float]) -> None:
    """Any six consecutive steps, so any 50 seconds, have at most the limit of admitted requests.

    A first minute's requests up to the limit are all admitted.
    """
    window, now, admitted = SlidingWindow(), START, []
    for gap in gaps:
        now += gap
        if window.admit("a", limit, now).admitted:
            admitted.append(now)
    steps = Counter(int(moment // BUCKET_SECONDS) for moment in admitted)
    assert all(sum(steps[first + k] for k in range(6)) <= limit for first in steps)
    seconds = WINDOW_SECONDS - BUCKET_SECONDS
    assert all(sum(moment <= other < moment + seconds for other in admitted) <= limit for moment in admitted)
    assert len(admitted) >= min(limit, len(gaps))


@given(limits, pauses)
def test_whoever_waits_as_told_is_admitted(limit: int, gaps: list[float]) -> None:
    """A refusal names the seconds until admission, at most 60; a second earlier the client is refused."""
    window, now = SlidingWindow(), START
    for gap in gaps:
        now += gap
        verdict = window.admit("a", limit, now)
        if not verdict.admitted:
            assert 1 <= verdict.reset_seconds <= WINDOW_SECONDS
            assert not window.admit("a", limit, now + verdict.reset_seconds - 1.001).admitted
            assert window.admit("a", limit, now + verdict.reset_seconds).admitted
            return


@given(limits, pauses)
def test_remaining_is_what_remains(limit: int, gaps: list[float]) -> None:
    """Exactly as many requests as remain are admitted at once, and the next is refused."""
    window, now = SlidingWindow(), START
    for gap in gaps:
        now += gap
        remaining = window.admit("a", limit, now).remaining
    assert [window.admit("a", limit, now).admitted for _ in range(remaining + 1)] == [True] * remaining + [False]


@given(limits, pauses)
def test_refusals_do_not_count(limit: int, gaps: list[float]) -> None:
    """Refused requests do not prolong the wait."""
    patient, impatient, now = SlidingWindow(), SlidingWindow(), START
    for gap in gaps:
        now += gap
        verdict = impatient.admit("a", limit, now)
        while impatient.admit("a", limit, now).admitted:
            patient.admit("a", limit, now)
        assert patient.admit("a", limit, now).admitted == verdict.admitted


def test_clients_are_apart() -> None:
    """A client's requests do not count for another client."""
    window = SlidingWindow()
    assert [window.admit(client, 1, START).admitted for client in ("a", "b", "a", "b")] == [True, True, False, False]


def test_a_clock_set_back_neither_frees_nor_locks() -> None:
    """After the clock is set back, requests count in the newest step."""
    window = SlidingWindow()
    assert window.admit("a", 2, START).admitted
    assert window.admit("a", 2, START - 3600).admitted
    assert not window.admit("a", 2, START - 3600).admitted
    assert window.admit("a", 2, START + 60).admitted


def test_memory_is_bounded() -> None:
    """Only the latest addresses are remembered, even while counts cannot be shared."""
    window = SlidingWindow(capacity=100)
    for number in range(1000):
        window.admit(f"address {number}", 5, START)
    assert len(window._clients) == 100
    assert window.unshared_clients <= 100
    assert window.admit("address 999", 5, START).remaining == 3


def test_kinds_and_keys_are_counted_apart() -> None:
    """Submissions and reads have separate limits; the key's holder has a limit multiplied by the factor, for all
    addresses together.
    """
    limited = limits_of(rate_limit_submit_per_minute=1, rate_limit_read_per_minute=2, rate_limit_key_factor=3)

    def admitted(kind: str, address: str, holds_key: bool) -> int:
        verdicts = [limited.admit(kind, address, holds_key, START) for _ in range(10)]
        return sum(verdict is not None and verdict.admitted for verdict in verdicts)

    assert [admitted(kind, "203.0.113.9", False) for kind in ("submit", "read")] == [1, 2]
    assert [admitted(kind, "203.0.113.9", True) for kind in ("submit", "read")] == [3, 6]
    assert [admitted(kind, "203.0.113.10", True) for kind in ("submit", "read")] == [0, 0]


def test_zero_is_no_limit() -> None:
    """Zero switches a limit off, also the key's alone."""
    limited = limits_of(rate_limit_submit_per_minute=0, rate_limit_read_per_minute=1, rate_limit_key_factor=0)
    assert limited.admit("submit", "a", False, START) is None
    assert limited.admit("read", "a", True, START) is None
    assert limited.admit("read", "a", False, START) is not None
    assert not limits_of(rate_limit_submit_per_minute=0, rate_limit_read_per_minute=0).enforced


def test_headers_have_the_drafts_form() -> None:
    """The headers are structured fields as in drafts 08 to 11 (policy name, q, w; r, t), and the three fields of draft
    06.
    """
    assert rate_limit_headers("submit", Decision(True, 100, 57, 12)) == [
        (b"ratelimit-policy", b'"submit";q=100;w=60'),
        (b"ratelimit", b'"submit";r=57;t=12'),
        (b"ratelimit-limit", b"100"),
        (b"ratelimit-remaining", b"57"),
        (b"ratelimit-reset", b"12"),
    ]


@given(st.sampled_from(["submit", "read"]), st.integers(1, 10**9), st.integers(0, 10**9), st.integers(1, 60))
def test_a_reader_of_structured_fields_reads_the_headers(kind: str, limit: int, remaining: int, reset: int) -> None:
    """http-sf reads the headers as the draft's examples: a string, with integers as parameters."""
    headers = dict(rate_limit_headers(kind, Decision(True, limit, remaining, reset)))
    assert members(headers[b"ratelimit-policy"]) == [(kind, {"q": limit, "w": WINDOW_SECONDS})]
    assert members(headers[b"ratelimit"]) == [(kind, {"r": remaining, "t": reset})]
    assert members(b'"default";q=100;w=10') == [("default", {"q": 100, "w": 10})]
    assert members(b'"default";r=50;t=30') == [("default", {"r": 50, "t": 30})]
    plain = [members(headers[b"ratelimit-" + name]) for name in (b"limit", b"remaining", b"reset")]
    assert plain == [[(limit, {})], [(remaining, {})], [(reset, {})]]


def members(header: bytes) -> Any:
    """Return the members of a list of structured fields (RFC 9651), each with parameters."""
    return http_sf.parse(header, tltype="list")


async def test_what_one_process_admitted_counts_in_another() -> None:
    """After the exchanges of both, a process counts the other's requests; a restarted process gets the counts again."""
    shared, clock = Counts(), FixedClock()
    first, second = Process(shared, clock, 10), Process(shared, clock, 10)
    for _ in range(8):
        first.ask()
    second.ask()
    await first.sharing.exchange()
    await second.sharing.exchange()
    assert second.ask().remaining == 0
    assert not second.ask().admitted
    restarted = Process(shared, clock, 10)
    restarted.ask()
    await second.sharing.exchange()
    await restarted.sharing.exchange()
    assert not restarted.ask().admitted
    clock.time += WINDOW_SECONDS
    assert restarted.ask().admitted


@given(limits, st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.floats(0, 3)), max_size=150))
def test_processes_together_exceed_the_limit_only_by_what_they_do_not_know_yet(
    limit: int, steps: list[tuple[int, bool, float]]
) -> None:
    """Processes together admit at most the limit, and the requests arriving during two exchanges.

    A process admits a request only while its known requests are below the limit. Unknown are only requests not yet
    shared by other processes, or shared since the last exchange.
    """

    async def run() -> None:
        shared, clock = Counts(), FixedClock()
        processes = [Process(shared, clock, limit) for _ in range(3)]
        admitted: list[tuple[float, int]] = []
        told: list[int] = [0, 0, 0]
        seen: list[set[int]] = [set(), set(), set()]
        for number, asks, pause in steps:
            clock.time += pause
            if asks:
                live = {
                    index
                    for index, (moment, _) in enumerate(admitted)
                    if int(moment // BUCKET_SECONDS) > int(clock.time // BUCKET_SECONDS) - 6
                }
                own = {index for index, (_, by) in enumerate(admitted) if by == number}
                if processes[number].ask().admitted:
                    assert len(live & (seen[number] | own)) < limit
                    admitted.append((clock.time, number))
            else:
                has_news = any(by == number for _, by in admitted[told[number] :])
                await processes[number].sharing.exchange()
                if has_news:
                    told[number] = len(admitted)
                    seen[number] = {i for i, (_, by) in enumerate(admitted) if i < told[by]}

    asyncio.run(run())


async def test_without_the_others_each_goes_on_alone() -> None:
    """With the shared counts unreachable, the local limit holds, and the counts are shared later."""
    shared, clock = Counts(), FixedClock()
    first, second = Process(shared, clock, 10), Process(shared, clock, 10)
    shared.away = True
    for _ in range(6):
        assert first.ask().admitted
    with pytest.raises(DatabaseUnavailable):
        await first.sharing.exchange()
    assert first.ask().remaining == 3
    shared.away = False
    await first.sharing.exchange()
    assert sum(shared.counts.values()) == 7
    second.ask()
    await second.sharing.exchange()
    assert second.ask().remaining == 1


async def test_nothing_new_is_nothing_sent() -> None:
    """An idle process sends no counts to the database."""
    shared, clock = Counts(), FixedClock()
    process = Process(shared, clock, 1)
    process.ask()
    await process.sharing.exchange()
    shared.away = True
    assert not process.ask().admitted
    await process.sharing.exchange()


async def test_many_clients_are_told_in_bounded_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of many clients are sent in bounded parts, and no client is left out."""
    monkeypatch.setattr("iidq.web.guard.rate_sharing._LARGEST_EXCHANGE", 10)
    shared, clock = Counts(), FixedClock()
    process = Process(shared, clock, 5)
    for number in range(35):
        process.limits.admit("read", f"address {number}", False, START)
    sizes = []
    add = shared.add

    async def measured(additions: Sequence[KeyedCount], *, since_bucket: int) -> tuple[list[KeyedCount], float | None]:
        sizes.append(len(additions))
        return await add(additions, since_bucket=since_bucket)

    monkeypatch.setattr(shared, "add", measured)
    await process.sharing.exchange()
    assert sizes == [10, 10, 10, 5]
    assert len(shared.counts) == 35
