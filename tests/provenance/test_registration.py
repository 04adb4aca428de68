"""The search for the registration's transaction by its time."""

import asyncio
from bisect import bisect_left, bisect_right
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import RpcFault
from iidq.provenance.ethereum.jsonrpc import BlockHeader, CallRefused, read_block
from iidq.provenance.ethereum.registration import NotFound, blocks_of_second, logs_between, pick_registration
from iidq.provenance.ethereum.registry import CONTENT_REGISTERED_TOPIC, Entry

HASH = "0x" + "ab" * 32
REGISTRY = "0x" + "5e" * 20
CREATOR = "0xA11B0dC0ef5E51b47368a9AF802d97201C0c6F52"
ENTRY = Entry(CREATOR, HASH, "ipfs://x", 5)

# Seconds between blocks: chains with many blocks a second, steady chains, and stalled chains.
gaps = st.lists(st.sampled_from([0, 0, 1, 2, 2, 12, 13, 10_000_000]), min_size=0, max_size=400)


class Blocks:
    """Blocks with given times; ``read`` has the numbers of the read blocks."""

    def __init__(self, times: list[int]) -> None:
        self.times = times
        self.read: list[int] = []

    def block(self, number: int) -> BlockHeader:
        return BlockHeader(number, "0x" + f"{number:064x}", self.times[number])

    async def at(self, number: int) -> BlockHeader:
        self.read.append(number)
        return self.block(number)

    @property
    def newest(self) -> BlockHeader:
        return self.block(len(self.times) - 1)


def times_of(start: int, steps: list[int]) -> list[int]:
    times = [start]
    for step in steps:
        times.append(times[-1] + step)
    return times


@given(st.integers(0, 2_000_000_000), gaps, st.data())
def test_the_second_is_found_on_any_chain(start: int, steps: list[int], data: st.DataObject) -> None:
    """Exactly the blocks of the second are found, at any pace of the chain."""
    blocks = Blocks(times_of(start, steps))
    timestamp = data.draw(st.sampled_from(blocks.times))
    found = asyncio.run(blocks_of_second(timestamp, 0, blocks.newest, blocks.at))
    assert found == (bisect_left(blocks.times, timestamp), bisect_right(blocks.times, timestamp) - 1)
    assert len(blocks.read) == len(set(blocks.read))


@given(st.integers(0, 2_000_000_000), gaps, st.integers(-5, 60_000_000), st.integers(0, 400))
def test_a_second_without_block_is_not_found(start: int, steps: list[int], offset: int, low: int) -> None:
    """If no block from the start block on has the time, the search ends without a block."""
    blocks = Blocks(times_of(start, steps))
    timestamp = start + offset
    if timestamp in blocks.times[low:]:
        return
    with pytest.raises(NotFound):
        asyncio.run(blocks_of_second(timestamp, low, blocks.newest, blocks.at))


@pytest.mark.parametrize(
    "times",
    [
        pytest.param([1_700_000_000 + 2 * n for n in range(2_000_000)], id="2 s steadily"),
        pytest.param([0] + [1_438_269_988 + 12 * n + n % 3 for n in range(2_000_000)], id="genesis in 1970"),
        pytest.param([1_600_000_000 + 15 * min(n, 10**6) + 2 * n for n in range(2_000_000)], id="a change of pace"),
    ],
)
def test_few_blocks_are_read_on_long_chains(times: list[int]) -> None:
    """On a chain of two million blocks, about eight reads find any second."""
    counts = []
    for number in range(1_000, len(times), 99_991):
        blocks = Blocks(times)
        assert asyncio.run(blocks_of_second(times[number], 0, blocks.newest, blocks.at)) == (number, number)
        counts.append(len(blocks.read))
    assert sum(counts) / len(counts) <= 10
    assert max(counts) <= 25


async def test_many_blocks_of_one_second_are_found_whole() -> None:
    """A thousand blocks of the same second are found with few reads."""
    blocks = Blocks([100] * 50 + [200] * 1_000 + [300] * 50)
    assert await blocks_of_second(200, 0, blocks.newest, blocks.at) == (50, 1_049)
    assert len(blocks.read) < 60


async def test_lying_times_end_the_search() -> None:
    """Senseless block times end the search within the bound."""

    async def nonsense(number: int) -> BlockHeader:
        return BlockHeader(number, "0x", 5 if number % 2 else 10**9)

    try:
        first, last = await blocks_of_second(10**8, 1, BlockHeader(10**12, "0x", 10**9), nonsense)
    except NotFound:
        return
    assert first <= last


def refusing(limit: int, suggestion: tuple[int, int] | None = None) -> Any:
    asked: list[tuple[int, int]] = []

    async def read_logs(first: int, last: int) -> list[Any]:
        asked.append((first, last))
        if last - first + 1 > limit:
            raise CallRefused("too wide", block_range=suggestion)
        return list(range(first, last + 1))

    return read_logs, asked


async def test_a_free_range_is_one_call() -> None:
    """If the endpoint does not limit ranges, a single call covers the second."""
    read_logs, asked = refusing(10_000)
    assert await logs_between(5, 104, read_logs) == list(range(5, 105))
    assert asked == [(5, 104)]


@pytest.mark.parametrize("limit", [1, 3, 10, 64, 99])
async def test_limited_ranges_are_split(limit: int) -> None:
    """If ranges are limited, the pieces cover the second once and in order."""
    read_logs, _ = refusing(limit)
    assert await logs_between(5, 54, read_logs) == list(range(5, 55))


async def test_a_suggested_range_is_taken() -> None:
    """The range suggested by the endpoint gives the size of the pieces."""
    read_logs, asked = refusing(40, (5, 44))
    assert await logs_between(5, 104, read_logs) == list(range(5, 105))
    assert asked == [(5, 104), (5, 44), (45, 84), (85, 104)]


async def test_a_suggestion_of_what_was_asked_ends_the_search() -> None:
    """An endpoint that suggests the refused range ends the search."""
    read_logs, asked = refusing(0, (5, 104))
    with pytest.raises(NotFound, match="suggests"):
        await logs_between(5, 104, read_logs)
    assert len(asked) == 1


async def test_one_refused_block_ends_the_search() -> None:
    """An endpoint that refuses a single block ends the search."""
    read_logs, asked = refusing(0)
    with pytest.raises(NotFound, match="one block"):
        await logs_between(5, 104, read_logs)
    assert len(asked) == 7


async def test_splitting_is_bounded() -> None:
    """A huge second on a strict endpoint ends within the bound of calls."""
    read_logs, asked = refusing(1)
    with pytest.raises(NotFound, match="reads of logs"):
        await logs_between(0, 10_000, read_logs)
    assert len(asked) == 64


def log(tx: int, **changes: Any) -> dict[str, Any]:
    topics = [CONTENT_REGISTERED_TOPIC, HASH, "0x" + CREATOR[2:].lower().rjust(64, "0")]
    return {"address": REGISTRY, "topics": topics, "transactionHash": f"0x{tx:064x}", **changes}


def test_the_creators_latest_event_is_picked() -> None:
    """Of several registrations in the same second, the creator's last is the entry's."""
    stranger = [CONTENT_REGISTERED_TOPIC, HASH, "0x" + "00" * 12 + "77" * 20]
    logs = [log(1), log(2), log(3, topics=stranger), log(4, removed=True)]
    assert pick_registration(logs, REGISTRY.upper().replace("0X", "0x"), HASH, ENTRY) == f"0x{2:064x}"


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        [],
        log(1, address="0x" + "11" * 20),
        log(1, topics=[CONTENT_REGISTERED_TOPIC, "0x" + "cd" * 32, "0x"]),
        log(1, topics="text"),
        log(1, transactionHash=None),
    ],
)
def test_an_endpoint_that_ignores_the_filter_is_not_believed(entry: Any) -> None:
    """Logs outside the filter put no transaction into a proof."""
    with pytest.raises(NotFound):
        pick_registration([entry], REGISTRY, HASH, ENTRY)


@pytest.mark.parametrize("value", [5, {}, {"hash": "0x12"}, {"hash": "0x" + "00" * 32, "number": None}])
def test_only_blocks_are_blocks(value: Any) -> None:
    """Anything but a block is a temporary fault of the endpoint."""
    with pytest.raises(RpcFault):
        read_block(value)
