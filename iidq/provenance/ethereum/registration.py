"""Find the transaction that registered a content hash, without scanning the chain.

The entry's timestamp is the time of its block. Interpolation over block times finds the blocks of the same second.
An ``eth_getLogs`` call over the blocks finds the event. web3 has no such search, and trusts the endpoint's filter.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from iidq.provenance.ethereum.jsonrpc import BlockHeader, CallRefused, hex_bytes
from iidq.provenance.ethereum.registry import CONTENT_REGISTERED_TOPIC, Entry
from iidq.provenance.report import SourceTried

MAX_PROBES: Final = 200
# Interpolated probes by which the number of remaining blocks must have halved.
_PROBES_PER_HALVING: Final = 3
MAX_LOG_CALLS: Final = 64


@dataclass(frozen=True, slots=True)
class Registration:
    """The result of the search for the registration's transaction."""

    tx_hash: str | None
    """The transaction's hash, ``0x`` and 64 hex digits; None if it was not found."""
    reason: str
    """The place of the event, or the reason why the transaction was not found."""
    sources: tuple[SourceTried, ...] = ()
    """Every endpoint that was tried."""


class NotFound(Exception):
    """The search ended without the transaction; the message has the reason. Becomes a :class:`Registration`."""


ReadBlock = Callable[[int], Awaitable[BlockHeader]]
ReadLogs = Callable[[int, int], Awaitable[list[Any]]]


async def blocks_of_second(timestamp: int, low: int, high: BlockHeader, block_at: ReadBlock) -> tuple[int, int]:
    """Return the first and the last block from ``low`` to ``high`` with the time ``timestamp``.

    Block times never decrease. Both ends are found by interpolation at the chain's local pace, and by halving where
    interpolation is too slow. Raises :class:`NotFound` if no block has that time.
    """
    probed = {high.number: high}

    async def probe(number: int) -> BlockHeader:
        if number not in probed:
            if len(probed) > MAX_PROBES:
                raise NotFound(f"its block was not among {MAX_PROBES} that were read")
            probed[number] = await block_at(number)
        return probed[number]

    if low > high.number:
        raise NotFound(f"the search begins at block {low}, after the block that was read")
    lowest = await probe(low)
    if not lowest.timestamp <= timestamp <= high.timestamp:
        raise NotFound("its time is outside the blocks that were searched")
    first = low if lowest.timestamp == timestamp else await _first_at_least(timestamp, lowest, high, probe)
    if (await probe(first)).timestamp != timestamp:
        raise NotFound("no block has its time")
    if high.timestamp == timestamp:
        return first, high.number
    return first, await _last_of_run(first, timestamp, high.number, probe)


async def _first_at_least(timestamp: int, below: BlockHeader, reached: BlockHeader, probe: ReadBlock) -> int:
    """Return the first block with at least this time, above ``below`` (earlier) and up to ``reached`` (not earlier)."""
    earlier, latest = below, reached  # the two latest probes give the chain's local pace
    left_at_checkpoint, probes = reached.number - below.number, 0
    while (left := reached.number - below.number) > 1:
        elapsed, blocks = latest.timestamp - earlier.timestamp, latest.number - earlier.number
        if (probes == _PROBES_PER_HALVING and left > left_at_checkpoint // 2) or elapsed * blocks <= 0:
            guess = below.number + left // 2
        else:
            guess = latest.number - (latest.timestamp - timestamp) * blocks // elapsed
        if probes == _PROBES_PER_HALVING:
            left_at_checkpoint, probes = left, 0
        probes += 1
        block = await probe(min(max(guess, below.number + 1), reached.number - 1))
        earlier, latest = latest, block
        if block.timestamp >= timestamp:
            reached = block
        else:
            below = block
    return reached.number


async def _last_of_run(first: int, timestamp: int, high: int, probe: ReadBlock) -> int:
    """Return the last block with the time of ``first``, by doubling steps, then by halving; ``high`` is later."""
    inside, step = first, 1
    outside = high
    while inside + step < outside:
        block = await probe(inside + step)
        if block.timestamp != timestamp:
            outside = block.number
            break
        inside, step = block.number, step * 2
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if (await probe(middle)).timestamp == timestamp:
            inside = middle
        else:
            outside = middle
    return inside


async def logs_between(first: int, last: int, read_logs: ReadLogs) -> list[Any]:
    """Return the logs of a range of blocks in order, in pieces where the endpoint limits ranges.

    A refused range is cut to the endpoint's suggestion, or halved. Raises :class:`NotFound` if the endpoint refuses a
    single block, or the range of its own suggestion.
    """
    logs: list[Any] = []
    piece = last - first + 1
    for _ in range(MAX_LOG_CALLS):
        if first > last:
            return logs
        end = min(first + piece - 1, last)
        try:
            logs += await read_logs(first, end)
        except CallRefused as fault:
            piece = _smaller_piece(first, end, fault.block_range)
        else:
            first = end + 1
    if first > last:
        return logs
    raise NotFound(f"its second has more blocks than {MAX_LOG_CALLS} reads of logs could cover")


def _smaller_piece(first: int, end: int, suggested: tuple[int, int] | None) -> int:
    size = end - first + 1
    if size == 1:
        raise NotFound("the RPC endpoint refuses to search even one block's logs")
    if suggested is None:
        return size // 2
    suggested_size = suggested[1] - suggested[0] + 1
    if suggested_size >= size:
        raise NotFound("the RPC endpoint refuses the very range of blocks that it suggests")
    return suggested_size


def pick_registration(logs: list[Any], registry_address: str, content_hash: str, entry: Entry) -> str:
    """Return the transaction of the event that made this entry, the latest if there are several.

    Checks the filter again: an endpoint that ignores the filter must not put another transaction into a proof. Raises
    :class:`NotFound` if no log fits.
    """
    creator_topic = "0x" + entry.creator[2:].lower().rjust(64, "0")
    expected_topics = [CONTENT_REGISTERED_TOPIC, content_hash, creator_topic]
    for log in reversed(logs):
        if not isinstance(log, dict) or log.get("removed") is True:
            continue
        topics, address, tx_hash = log.get("topics"), log.get("address"), log.get("transactionHash")
        if not isinstance(topics, list) or not isinstance(address, str) or not isinstance(tx_hash, str):
            continue
        if (
            [str(topic).lower() for topic in topics] == expected_topics
            and address.lower() == registry_address.lower()
            and len(hex_bytes(tx_hash)) == 32
        ):
            return tx_hash.lower()
    raise NotFound("no registration event of this creator is in the blocks of its second")
