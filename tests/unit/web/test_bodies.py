"""Uploads in large pieces, which threads hash: the right digest, one piece at a time, and all faults."""

import asyncio
import hashlib
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from iidq.errors import InvalidInput
from iidq.settings import Settings
from iidq.web.request.bodies import THREAD_BYTES, read_submission
from iidq.web.request.submission import Submission, SubmissionRules
from iidq.web.request_context import RequestContext

SETTINGS = Settings(rpc_url="http://rpc.example/")
RULES = SubmissionRules(SETTINGS)
FIELDS = {"registryAddress": "0x" + "cd" * 20, "manifestURI": "https://example.org/m.json"}


def form(content: bytes, **changes: str) -> bytes:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in (FIELDS | changes).items()
    ]
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + content + b"\r\n--b--\r\n"
    return b"".join(parts) + file


class Sending:
    """A client's request in these pieces; ``received`` counts the pieces that were taken."""

    def __init__(self, pieces: Sequence[bytes], threads: ThreadPoolExecutor) -> None:
        self.received = 0
        self._pieces = pieces
        self._threads = threads

    async def read(self, *, max_upload_bytes: int = 1 << 30) -> Submission:
        headers = [(b"content-type", b"multipart/form-data; boundary=b")]
        service = SimpleNamespace(settings=SETTINGS, hashing=self._threads)
        scope = {
            "type": "http",
            "headers": headers,
            "app": SimpleNamespace(state=SimpleNamespace(service=service)),
            "context": RequestContext("id", 0.0, dict(headers)),
        }
        return await read_submission(Request(scope, self._receive), RULES, max_upload_bytes=max_upload_bytes)

    async def _receive(self) -> dict[str, Any]:
        piece = self._pieces[self.received]
        self.received += 1
        return {"type": "http.request", "body": piece, "more_body": self.received < len(self._pieces)}


def cut(body: bytes, *sizes: int) -> list[bytes]:
    """The body in pieces of these sizes, and the rest."""
    return [body[start:end] for start, end in pairwise([0, *accumulate(sizes), len(body)])]


def sha256(content: bytes) -> str:
    return "0x" + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [1, THREAD_BYTES, 5, THREAD_BYTES - 1, THREAD_BYTES + 1],
        [300, 200_000, 3, 200_000, 70_000, 200_000],
    ],
)
async def test_large_pieces_are_hashed_in_their_order(sizes: list[int]) -> None:
    """Each of several uploads at once gets the digest of its own bytes, for any mixture of small and large pieces."""
    contents = [random.Random(seed).randbytes(1 << 20) for seed in range(3)]
    with ThreadPoolExecutor(2) as threads:
        read = [Sending(cut(form(content), *sizes), threads).read() for content in contents]
        found = await asyncio.gather(*read)
    assert [submission.subject.content_hash for submission in found] == [sha256(content) for content in contents]


async def test_no_further_piece_is_taken_while_the_threads_are_busy() -> None:
    """An upload that waits for a thread holds one piece, so waiting uploads need bounded memory."""
    content = bytes(8 * THREAD_BYTES)
    free = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(free.wait)
        sending = Sending(cut(form(content), *[THREAD_BYTES] * 7), threads)
        reading = asyncio.create_task(sending.read())
        try:
            for _ in range(20):
                await asyncio.sleep(0)
            assert sending.received == 1
        finally:
            free.set()
        assert (await reading).subject.content_hash == sha256(content)


async def test_a_cancelled_upload_leaves_its_thread_to_others() -> None:
    """An upload that is cancelled while it waits for a thread neither breaks nor keeps the thread."""
    content = bytes(2 * THREAD_BYTES)
    free = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(free.wait)
        cancelled = asyncio.create_task(Sending([form(content)], threads).read())
        await asyncio.sleep(0)
        cancelled.cancel()
        free.set()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert (await Sending([form(content)], threads).read()).subject.content_hash == sha256(content)


async def test_faults_in_a_large_piece_are_all_named() -> None:
    """A piece that a thread reads has the same refusals as any other: every faulty field at once, or the limit."""
    with ThreadPoolExecutor(1) as threads:
        body = form(bytes(THREAD_BYTES), registryAddress="0x12", chainId="0", share="maybe")
        with pytest.raises(InvalidInput) as refusal:
            await Sending([body], threads).read()
        assert [fault.field for fault in refusal.value.faults] == ["registryAddress", "chainId", "share"]
        with pytest.raises(HTTPException) as too_large:
            await Sending([form(bytes(THREAD_BYTES))], threads).read(max_upload_bytes=1000)
        assert too_large.value.status_code == 413
