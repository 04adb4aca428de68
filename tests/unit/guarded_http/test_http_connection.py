"""A connection of a guarded fetch, against servers that bend the protocol."""

import asyncio
import re

import pytest

from iidq.errors import GatewayFault
from iidq.guarded_http.fetch import WebFetcher
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.http_connection import Deadlines
from iidq.guarded_http.url import parse_web_url
from tests.unit.guarded_http.scripted_server import Request, always, response, serving
from tests.unit.guarded_http.test_fetch import CHUNKED, LOCAL, PATIENT, endless, fetching, get

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_an_unasked_answer_is_never_given_to_the_next_request(when: str) -> None:
    """A second answer to a request ends the connection; the next request gets the right answer."""
    sent = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if server.connections > 1:
            writer.write(response(b"asked"))
            return
        writer.write(response(b"asked") + (response(b"unasked") if when == "at once" else b""))
        if when == "later":
            await answered.wait()
            writer.write(response(b"unasked"))
        sent.set()

    answered = asyncio.Event()
    async with serving(answer) as server, fetching() as fetcher:
        uri = parse_web_url(server.url, allow_private=LOCAL)
        assert (await fetcher.fetch(uri, max_bytes=10)).body == b"asked"
        answered.set()
        await sent.wait()
        if when == "later":
            await server.hung_up.wait()
        assert (await fetcher.fetch(uri, max_bytes=10)).body == b"asked"
        assert server.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        OK + b"Content-Length : 3\r\n\r\nabc",
        OK + b"Content-Length: +3\r\n\r\nabc",
        OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        OK + b"Content-Encoding: a\x1b[31m\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: b\x00\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: b\rC: d\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: b\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
        CHUNKED + b"1 \r\nx\r\n0\r\n\r\n",
        CHUNKED + b"1\r\nxx\r\n0\r\n\r\n",
        CHUNKED + b"-1\r\nx\r\n0\r\n\r\n",
    ],
)
async def test_answers_that_parsers_read_differently_are_no_answers(raw: bytes) -> None:
    """Doubtful framing and control characters are a temporary fault, and the message quotes neither."""
    async with serving(always(raw)) as server:
        with pytest.raises(GatewayFault) as caught:
            await get(server.url)
    assert re.fullmatch(r"127\.0\.0\.1:\d+ does not speak proper HTTP", caught.value.message)


@pytest.mark.parametrize(
    ("piece", "head"),
    [
        (b"\r\n" * 500, b""),
        (b"x" * 1000, OK + b"A: "),
        (b" " * 1000, OK + b"A:"),
        (b"A:\r\n" * 250, OK),
        (b"A: b\r\n" * 250, CHUNKED + b"1\r\nx\r\n0\r\n"),
        (b"0" * 1000, CHUNKED),
        (b"x" * 1000, CHUNKED + b"1;"),
        (b"1;" + b"x" * 4000 + b"\r\nx\r\n", CHUNKED),
        (b"HTTP/1.1 103 Hints\r\n\r\n" * 50, b""),
    ],
)
async def test_bytes_that_lead_nowhere_are_bounded(piece: bytes, head: bytes) -> None:
    """Blank lines, padding, fields, trailers, chunk heads, extensions and hints without an end are cut off early."""
    async with serving(endless(piece, head=head)) as server:
        with pytest.raises(GatewayFault) as caught:
            await get(server.url, max_bytes=100_000)
        await server.hung_up.wait()
    assert caught.value.code != "fetch.timeout"


async def test_a_head_that_drips_has_one_deadline() -> None:
    """The first deadline is for the whole head: single bytes do not move the deadline."""

    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"A: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as server:
        deadlines = Deadlines(connect_seconds=20, first_byte_seconds=0.2, idle_seconds=20, total_seconds=30)
        with pytest.raises(GatewayFault, match="did not answer"):
            await get(server.url, deadlines=deadlines)
        await server.hung_up.wait()


async def test_chunk_extensions_do_not_keep_a_body_waiting() -> None:
    """Bytes outside the body do not reset the deadline for idle bodies."""

    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"1;")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as server:
        deadlines = Deadlines(connect_seconds=20, first_byte_seconds=20, idle_seconds=0.2, total_seconds=30)
        with pytest.raises(GatewayFault, match="sent nothing"):
            await get(server.url, deadlines=deadlines)
        await server.hung_up.wait()


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + response(b"{}"), b"{}"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
        (CHUNKED + b'1;a="b"\r\n{\r\n1\r\n}\r\n0\r\nChecked: yes\r\n\r\n', b"{}"),
        (OK + b"transfer-encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"{}"),
        (response(b"{}", "Connection: close") + b"surplus", b"{}"),
        (response(b"{}", *(f"X-{number}: {'y' * 100}" for number in range(200))), b"{}"),
    ],
)
async def test_unusual_but_proper_answers_are_read(raw: bytes, body: bytes) -> None:
    """Hints, old versions, extensions, trailers, many fields and a surplus behind the last answer are allowed."""
    async with serving(always(raw)) as server:
        answer = await get(server.url)
    assert (answer.body, answer.complete) == (body, True)


async def test_fields_keep_their_bytes_and_repeated_ones_are_joined() -> None:
    """Names are lower-case, repeated fields a list; bytes beyond ASCII are read as Latin-1; trailers are dropped."""
    raw = OK + b"VARY: a\r\nVary: b\r\nX: \xe9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nVary: c\r\n\r\n"
    async with serving(always(raw)) as server:
        answer = await get(server.url)
    assert answer.headers == {"vary": "a, b", "x": "é", "transfer-encoding": "chunked"}


async def test_a_body_without_length_ends_with_the_connection() -> None:
    """A body without length is complete at an orderly end of the connection."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n{}")
        await writer.drain()
        writer.close()

    async with serving(answer) as server:
        fetched = await get(server.url)
    assert (fetched.body, fetched.complete) == (b"{}", True)


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nb", "a\0", "é"])
async def test_a_field_cannot_add_another(value: str) -> None:
    """A request with line breaks or control characters in a field is never sent."""
    async with serving(always(response())) as server, fetching() as fetcher:
        uri = parse_web_url(server.url, allow_private=LOCAL)
        with pytest.raises(ValueError, match="control"):
            await fetcher.fetch(uri, max_bytes=10, headers=(("A", value),))
    assert server.requests == []


async def test_idle_connections_are_few() -> None:
    """Beyond the limit, the connection with the longest idle time is closed."""
    fetcher = WebFetcher(FetchPolicy.opening(["127.0.0.0/8"]), deadlines=PATIENT, max_idle_connections=1)
    async with serving(always(response(b"{}"))) as one, serving(always(response(b"{}"))) as other:
        try:
            for server in (one, other, one):
                uri = parse_web_url(server.url, allow_private=LOCAL)
                assert (await fetcher.fetch(uri, max_bytes=10)).body == b"{}"
            assert (one.connections, other.connections) == (2, 1)
        finally:
            await fetcher.aclose()
