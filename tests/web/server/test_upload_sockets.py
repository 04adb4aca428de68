"""Test uploads over real sockets, by clients that stop, lie, hurry or disconnect."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from iidq.web.server import lingering_close
from tests.web.serving import JOBS, ServeApi

FIELDS = {
    "registryAddress": "0x" + "ab" * 20,
    "manifestURI": "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o",
}
MIB = 1 << 20


def part(disposition: str, value: str) -> bytes:
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}".encode()


def fields(**changes: str) -> bytes:
    return b"".join(part(f'name="{name}"', value) + b"\r\n" for name, value in {**FIELDS, **changes}.items())


FILE_START = part('name="file"; filename="x.bin"', "")
END = b"\r\n--b--\r\n"


def head(*, length: int | None, **headers: str) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    content_type = "Content-Type: multipart/form-data; boundary=b"
    return f"POST {JOBS}/verify HTTP/1.1\r\nHost: api\r\n{content_type}\r\n{size}\r\n{more}\r\n".encode()


@asynccontextmanager
async def connected(api: httpx.AsyncClient) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.close()


async def reply_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split()[1]), headers, body


async def test_a_file_over_the_limit_is_refused_before_it_has_all_come(serve_api: ServeApi) -> None:
    """A file over the limit gives 413 at the first excess byte, and the connection closes."""
    async with serve_api(max_upload_bytes=100_000) as api, connected(api) as (reader, writer):
        writer.write(head(length=None))
        for piece in (FILE_START, b"x" * 100_001):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        status, headers, body = await reply_of(reader)
        writer.close()
    assert (status, headers["connection"]) == (413, "close")
    assert b"100000 bytes" in body


async def test_a_declared_giant_is_refused_unread(serve_api: ServeApi) -> None:
    """A too long declared body gives 413 before a byte of the body, with Expect: 100-continue."""
    async with serve_api(max_upload_bytes=1000) as api, connected(api) as (reader, writer):
        writer.write(head(length=10 * MIB, Expect="100-continue"))
        status, headers, _ = await reply_of(reader)
        writer.close()
    assert (status, headers["connection"]) == (413, "close")


async def test_a_client_that_sends_on_still_gets_its_reply(serve_api: ServeApi) -> None:
    """A client still sending gets its reply without a reset; the connection of an endless body is cut."""
    async with serve_api(max_upload_bytes=1000) as api:
        body = fields() + FILE_START + b"x" * (lingering_close.LINGER_BYTES // 2) + END
        reply = await api.post(
            f"{JOBS}/verify", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert (reply.status_code, reply.headers["connection"]) == (413, "close")
        async with connected(api) as (_, writer):
            writer.write(head(length=None))
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(b"%x\r\n%b\r\n" % (MIB, FILE_START + b"x" * (MIB - len(FILE_START))))
                    await writer.drain()


async def test_a_wrong_field_is_told_before_the_file_has_all_come(lonely_api: httpx.AsyncClient) -> None:
    """A wrong field is reported before the upload of the file ends."""
    async with connected(lonely_api) as (reader, writer):
        writer.write(head(length=1 << 29))
        writer.write(fields(registryAddress="0x12") + FILE_START + b"x" * (2 * MIB))
        status, headers, body = await reply_of(reader)
        writer.close()
    assert (status, headers["connection"]) == (400, "close")
    assert b'"field":"registryAddress"' in body


async def test_expect_continue_and_chunked_bodies_work(api: httpx.AsyncClient, database_url: str) -> None:
    """A client with Expect gets 100, chunks of any size are joined, and the connection stays usable."""
    content = os.urandom(300_000)
    async with connected(api) as (reader, writer):
        for _ in range(2):
            writer.write(head(length=None, Expect="100-continue"))
            assert (await reply_of(reader))[0] == 100
            body = FILE_START + content + b"\r\n" + fields() + b"--b--\r\n"
            for start in range(0, len(body), 70_001):
                piece = body[start : start + 70_001]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            writer.write(b"0\r\n\r\n")
            status, _, _ = await reply_of(reader)
            assert status == 200
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        rows = await (await connection.execute('SELECT "contentHash" FROM "VerificationJob"')).fetchall()
    assert rows == [("0x" + hashlib.sha256(content).hexdigest(),)] * 2


@pytest.mark.parametrize("sent", [b"", FILE_START[:20], FILE_START, fields() + FILE_START + b"x" * 200_000])
async def test_a_client_that_goes_away_leaves_nothing(
    api: httpx.AsyncClient, database_url: str, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """An upload broken off at any stage leaves no job and one line in the log."""
    gone = asyncio.Event()
    lines: list[str] = []

    def client_gone(correlation_id: str, method: str, path: str) -> None:
        lines.append(path)
        gone.set()

    monkeypatch.setattr("iidq.observability.logs.client_gone", client_gone)
    async with connected(api) as (_, writer):
        writer.write(head(length=500_000) + sent)
        await writer.drain()
    async with asyncio.timeout(30):
        await gone.wait()
    assert lines == [f"{JOBS}/verify"]
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        assert await (await connection.execute('SELECT count(*) FROM "VerificationJob"')).fetchone() == (0,)


async def test_a_silent_client_is_let_go(serve_api: ServeApi) -> None:
    """A body without progress gives 408 after the idle time, and the connection closes."""
    async with serve_api(request_idle_seconds=0.05) as api, connected(api) as (reader, writer):
        writer.write(head(length=500_000) + FILE_START)
        status, headers, _ = await reply_of(reader)
        writer.close()
    assert (status, headers["connection"]) == (408, "close")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
async def test_an_upload_is_kept_neither_in_memory_nor_on_disk(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three simultaneous uploads of 128 MiB cost less than 50 MiB of memory and no temporary file."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")

    async def body() -> AsyncIterator[bytes]:
        yield fields() + FILE_START
        for _ in range(128):
            yield zeros
        yield END

    def peak_kib() -> int:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))

    def peak_kib_from_here() -> int:
        Path("/proc/self/clear_refs").write_text("5")
        return peak_kib()

    zeros = bytes(MIB)
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    assert (await api.post(f"{JOBS}/verify", content=fields() + FILE_START + END, headers=form)).status_code == 200
    before_kib = peak_kib_from_here()
    replies = await asyncio.gather(*(api.post(f"{JOBS}/verify", content=body(), headers=form) for _ in range(3)))
    assert [reply.status_code for reply in replies] == [200] * 3
    assert peak_kib() - before_kib < 50 * 1024
