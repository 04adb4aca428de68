"""SHA-256 of a stream in threads: a thread hashes pieces while the event loop receives the next ones.

``hashlib`` releases the interpreter lock, so hashing is parallel and delays no other request. Eight uploads at once are
a fifth faster on two cores.
"""

import asyncio
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from iidq.provenance.digest import ContentDigest

INLINE_BYTES: Final = 32 * 1024
"""Shorter pieces are hashed in the event loop, in less time than a thread needs to start."""
MAX_PENDING_BYTES: Final = 1 << 20
"""Pending bytes of one stream above which :meth:`BackgroundDigest.room` waits."""
TURN_BYTES: Final = 4 << 20
"""Bytes after which a thread serves the next waiting stream."""


def hashing_threads() -> ThreadPoolExecutor:
    """Return one thread per processor, started on demand."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="iidq-hashing")


class BackgroundDigest:
    """The digest of a stream, for a task of the event loop.

    Await :meth:`room` between updates, and :meth:`done` before :meth:`content_hash`. An abandoned digest needs no
    clean-up: a thread finishes the pending bytes, which are bounded.
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
        """Take the stream's next bytes, which must not change afterwards."""
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
        """Wait until few bytes are pending."""
        if self._pending_bytes > MAX_PENDING_BYTES:
            await self._until(MAX_PENDING_BYTES // 2)

    async def done(self) -> None:
        """Wait until all bytes are hashed."""
        await self._until(0)

    def content_hash(self) -> str:
        """Return ``0x`` and 64 lower-case hex digits; no bytes may be pending."""
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
            # On a closed loop no task waits.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_release, waiter)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
