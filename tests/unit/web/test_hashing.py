"""Hashing beside the event loop: the same digest, a bounded backlog, and nothing that outlives a stream."""

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from iidq.web.request.hashing import INLINE_BYTES, MAX_PENDING_BYTES, TURN_BYTES, BackgroundDigest, hashing_threads


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0, 1, 2],
        [INLINE_BYTES - 1, INLINE_BYTES, 1, INLINE_BYTES + 1, 5],
        [256_000, 3] * 40,
        [MAX_PENDING_BYTES] * (2 * TURN_BYTES // MAX_PENDING_BYTES + 1),
    ],
)
async def test_pieces_are_hashed_in_their_order(sizes: list[int]) -> None:
    """Inline or in a thread, in one turn or several, beside other streams: each digest is that of its own bytes."""
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]

    async def digest_of(order: list[bytes]) -> str:
        digest = BackgroundDigest(threads)
        for piece in order:
            digest.update(memoryview(piece))
            await digest.room()
        await digest.done()
        return digest.content_hash()

    with hashing_threads() as threads:
        orders = [pieces, pieces[::-1], pieces]
        found = await asyncio.gather(*map(digest_of, orders))
    assert found == ["0x" + hashlib.sha256(b"".join(order)).hexdigest() for order in orders]


async def test_whoever_feeds_faster_than_the_hash_waits() -> None:
    """While the threads are busy the backlog of a stream stays bounded, and goes on when they are free again."""
    free = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        try:
            threads.submit(free.wait)
            digest = BackgroundDigest(threads)
            for _ in range(5):
                digest.update(bytes(MAX_PENDING_BYTES // 4))
            waiting = asyncio.create_task(digest.room())
            await asyncio.sleep(0)
            assert not waiting.done()
        finally:
            free.set()
        await waiting
        await digest.done()


async def test_a_stream_that_is_given_up_leaves_its_thread_to_others() -> None:
    """A waiting upload that is cancelled neither breaks the thread that hashes for it nor keeps it."""
    with ThreadPoolExecutor(1) as threads:
        given_up = BackgroundDigest(threads)
        for _ in range(8):
            given_up.update(bytes(MAX_PENDING_BYTES))
        waiting = asyncio.create_task(given_up.room())
        await asyncio.sleep(0)
        waiting.cancel()
        next_one = BackgroundDigest(threads)
        next_one.update(bytes(INLINE_BYTES))
        await next_one.done()
        assert next_one.content_hash() == "0x" + hashlib.sha256(bytes(INLINE_BYTES)).hexdigest()
