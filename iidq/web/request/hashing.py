"""SHA-256 of a stream beside the event loop: a thread hashes some pieces while the loop receives the next.

``hashlib`` lets go of the interpreter lock, so this is real parallelism, and other requests wait for no hash. On two
cores that ``curl`` and the API share, eight uploads at once gain a fifth by it and one alone a twentieth.
"""

import asyncio
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from iidq.provenance.digest import ContentDigest

INLINE_BYTES: Final = 32 * 1024
"""Shorter pieces are hashed where they are, in less time than a thread needs to take over."""
MAX_PENDING_BYTES: Final = 1 << 20
"""Of one stream; whoever feeds it waits while there are more."""
TURN_BYTES: Final = 4 << 20
"""After so many bytes a thread turns to the next stream that waits for one."""


def hashing_threads() -> ThreadPoolExecutor:
    """As many threads as can hash at a time; started when they are needed."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="iidq-hashing")


class BackgroundDigest:
    """The digest of one stream, for one task of the event loop.

    Await :meth:`room` between updates, and :meth:`done` before asking for the hash. A digest that is given up needs no
    goodbye: a thread ends what is pending, which is bounded.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._digest = ContentDigest()
        self._lock = threading.Lock()
        # From here on guarded by the lock.
        self._pieces: deque[bytes | memoryview] = deque()
        self._pending_bytes = 0
        self._hashing = False
        self._waiter: asyncio.Future[None] | None = None
        self._awaited_bytes = 0

    def update(self, piece: bytes | memoryview) -> None:
        """Take the stream's next bytes; they must not change afterwards."""
        with self._lock:
            idle = not self._hashing
            if not idle or len(piece) >= INLINE_BYTES:
                self._pieces.append(piece)
                self._pending_bytes += len(piece)
                self._hashing = True
                if idle:
                    self._threads.submit(self._hash)
                return
        self._digest.update(piece)

    async def room(self) -> None:
        """Wait until few bytes are pending; at once where they are not many."""
        if self._pending_bytes > MAX_PENDING_BYTES:
            await self._until(MAX_PENDING_BYTES // 2)

    async def done(self) -> None:
        """Wait until all is hashed."""
        await self._until(0)

    def content_hash(self) -> str:
        """``0x`` and 64 lower-case hex digits for the bytes taken so far; none may be pending."""
        return self._digest.content_hash()

    async def _until(self, pending_bytes: int) -> None:
        with self._lock:
            if self._pending_bytes <= pending_bytes:
                return
            self._awaited_bytes = pending_bytes
            waiter = self._waiter = self._loop.create_future()
        await waiter

    def _hash(self) -> None:
        turn_bytes = hashed_bytes = 0
        while True:
            with self._lock:
                self._pending_bytes -= hashed_bytes
                self._wake()
                if not self._pieces:
                    self._hashing = False
                    return
                if turn_bytes > TURN_BYTES:
                    self._threads.submit(self._hash)
                    return
                piece = self._pieces.popleft()
            self._digest.update(piece)
            hashed_bytes = len(piece)
            turn_bytes += hashed_bytes

    def _wake(self) -> None:
        if self._waiter is not None and self._pending_bytes <= self._awaited_bytes:
            waiter, self._waiter = self._waiter, None
            # A closed loop has nobody who waits.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_let_go, waiter)


def _let_go(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
