"""Test the end of requests: only Content-Length and Transfer-Encoding count, and each request gets one reply."""

import asyncio
import itertools
import shutil
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import psycopg
import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from iidq.web.request_context import RequestContext
from iidq.web.server.http_protocol import MAX_FRAMING_PER_BYTE, MAX_HEAD_BYTES, BoundedHttp
from iidq.web.server.lingering_close import LingeringClose
from tests.job_rows import COMPLETED, insert
from tests.nginx import needs_nginx, running_nginx
from tests.web.server.bad_clients import END, FILE, GOOD_FIELDS
from tests.web.server.raw_http import chunked, converse, replies_in, request
from tests.web.serving import JOBS, endpoints

SMUGGLED = f"POST {JOBS}/pause HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode()
"""A body that would pause the queue if taken for a request."""
UPGRADES = ("websocket", "h2c", "TLS/1.0", "unknown/7")
GOODBYE = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


# Every endpoint


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def is_paused(sql: psycopg.Connection[Any]) -> bool:
    return sql.execute("SELECT state FROM queue_health").fetchone() == ("paused",)


async def test_no_endpoint_takes_a_body_for_a_request(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """A request with any upgrade header gets one reply, and its body is never executed."""
    host, port = api.base_url.host, api.base_url.port or 0
    asked = [
        (method, path, upgrade, framing)
        for method, path in endpoints()
        for upgrade in UPGRADES
        for framing in ("length", "chunked")
        if (method, path) != ("POST", f"{JOBS}/pause")
    ]
    turns = asyncio.Semaphore(16)

    async def fault(method: str, path: str, upgrade: str, framing: str) -> str | None:
        form = {"body": SMUGGLED} if framing == "length" else {"chunks": [SMUGGLED[:9], SMUGGLED[9:]]}
        headers = (f"Connection: keep-alive, Upgrade\r\nUpgrade: {upgrade}", "Content-Type: application/json")
        sent = request(f"{method} {path} HTTP/1.1", *headers, **cast("Any", form)) + GOODBYE
        async with turns:
            replies = replies_in(await converse(host, port, sent), [method, "GET"])
        # A reply sent before the whole body was read is the last reply.
        closed = bool(replies) and replies[0].headers.get("connection") == "close"
        if len(replies) == (1 if closed else 2) and all(reply.status < 500 for reply in replies):
            return None
        return f"{method} {path} {upgrade} {framing}: {[reply.status for reply in replies]}"

    assert [found for found in await asyncio.gather(*itertools.starmap(fault, asked)) if found] == []
    assert not is_paused(sql)


async def test_every_endpoint_speaks_http_1_0(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """An HTTP/1.0 request gets one reply without chunks, and the connection closes; HEAD has no body."""
    host, port = api.base_url.host, api.base_url.port or 0
    ended = insert(sql, COMPLETED)
    seen = "If-None-Match: *\r\nLast-Event-ID: none"
    for method, path in [
        *endpoints(),
        *((way, f"{JOBS}/{ended}{rest}") for way in ("GET", "HEAD") for rest in ("", "/events")),
    ]:
        for headers in ("Connection: keep-alive", f"{seen}\r\nExpect: 100-continue"):
            received = await converse(host, port, request(f"{method} {path} HTTP/1.0", headers, body=b"") + GOODBYE)
            [reply] = replies_in(received, [method])
            assert (reply.headers["connection"], reply.headers.get("transfer-encoding")) == ("close", None), path
            assert reply.status >= 200, path
            bodiless = method == "HEAD" or reply.status in (204, 304)
            assert received.endswith(b"\r\n\r\n") or not bodiless, path


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_who_offers_an_upgrade_is_served(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], upgrade: str, framing: str
) -> None:
    """A client with an upgrade header submits as any other client, and the connection stays open."""
    form = FILE + GOOD_FIELDS + END
    sent = request(
        f"POST {JOBS}/verify HTTP/1.1",
        f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk",
        "Content-Type: multipart/form-data; boundary=b",
        body=form if framing == "length" else None,
        chunks=None if framing == "length" else [form[:50], form[50:]],
    )
    received = await converse(api.base_url.host, api.base_url.port or 0, sent * 2 + GOODBYE)
    assert [reply.status for reply in replies_in(received, ["POST", "POST", "GET"])] == [200] * 3
    assert sql.execute('SELECT count(*) FROM "VerificationJob"').fetchone() == (2,)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_that_offers_http2_is_served(api: httpx.AsyncClient) -> None:
    """`curl --http2` over plain HTTP, with an upgrade header for h2c, is served in HTTP/1.1."""
    fields = {"contentHash": "0x" + "ab" * 32, "manifestURI": "https://example.org/m"}
    body = httpx.Request("POST", "http://a", json={**fields, "registryAddress": "0x" + "cd" * 20}).content.decode()
    url = str(api.base_url.join(f"{JOBS}/verify"))
    curl = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--http2", "--max-time", "30", "--write-out", "%{http_code}"),
        *("--header", "Content-Type: application/json", "--data", body, url),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await curl.communicate()
    assert said.endswith(b"200"), said


# Behind nginx

_NGINX_CONFIGURATION = """
    upstream api {{
        server {api};
        keepalive 4;
    }}
    server {{
        listen unix:{folder}/nginx;
        location {pause} {{
            return 403;
        }}
        location / {{
            proxy_pass http://api;
            {proxying}
        }}
    }}
"""


_FOR_WEBSOCKETS = """
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
"""


@asynccontextmanager
async def nginx_before(api: httpx.AsyncClient, folder: Path, proxying: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """Start a real nginx with one refused path; without ``proxying`` nginx speaks HTTP/1.0 to the API."""
    address = f"{api.base_url.host}:{api.base_url.port}"
    text = _NGINX_CONFIGURATION.format(folder=folder, api=address, pause=f"{JOBS}/pause", proxying=proxying)
    async with running_nginx(folder, text, folder / "nginx"):
        transport = httpx.AsyncHTTPTransport(uds=str(folder / "nginx"))
        async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=30) as client:
            yield client


@needs_nginx
async def test_nginx_keeps_its_paths_to_itself(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """A path refused by nginx cannot be reached through the body of a request with an upgrade header."""
    async with nginx_before(api, tmp_path, _FOR_WEBSOCKETS) as proxied:
        assert (await proxied.post(f"{JOBS}/pause")).status_code == 403
        for upgrade in UPGRADES:
            headers = {"Upgrade": upgrade, "Content-Type": "application/json"}
            assert (await proxied.post(f"{JOBS}/verify", headers=headers, content=SMUGGLED)).status_code == 400
            form = {"Upgrade": upgrade, "Content-Type": "multipart/form-data; boundary=b"}
            reply = await proxied.post(f"{JOBS}/verify", headers=form, content=FILE + GOOD_FIELDS + END)
            assert reply.status_code == 200
        assert (await proxied.get("/livez")).json() == {"status": "ok"}
    assert not is_paused(sql)


@needs_nginx
async def test_nginx_as_it_comes_is_served(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """With nginx's default of HTTP/1.0, uploads, streams and slashes pass unchanged."""
    ended = insert(sql, COMPLETED)
    async with nginx_before(api, tmp_path) as proxied:
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        reply = await proxied.post(f"{JOBS}/verify/", headers=form, content=FILE + GOOD_FIELDS + END)
        assert (reply.status_code, reply.json()["status"]) == (200, "queued")
        for path in (f"{JOBS}/{ended}/events", JOBS, "/api/docs.json", "/metrics", "/"):
            direct, through = await api.get(path), await proxied.get(path)
            assert (through.status_code, through.headers["content-type"]) == (200, direct.headers["content-type"])
            if path != "/metrics":
                assert through.content == direct.content


# The protocol alone, with an app that echoes the request


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Reply with method, path and body; for ``/early`` before the body is read, for ``/streamed`` in pieces."""
    scope["context"] = RequestContext("id", 0.0)
    await LingeringClose(_tell)(scope, receive, send)


async def _tell(scope: Scope, receive: Receive, send: Send) -> None:
    body = b""
    while not scope["path"].startswith("/early"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            scope["context"].body_read = True
            break
    told = f"{scope['method']} {scope['path']} ".encode() + body
    streamed = scope["path"].startswith("/streamed")
    length = [] if streamed else [(b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    if streamed:
        for piece in (told[:5], b"", told[5:]):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        told = b""
    await send({"type": "http.response.body", "body": told})


async def talk(pieces: Iterable[bytes]) -> bytes:
    """Send each piece after the server has read the previous piece; return all bytes until the server closes."""
    configuration = uvicorn.Config(tell, lifespan="off", ws="none", log_config=None, access_log=False)

    def protocol() -> BoundedHttp:
        return BoundedHttp(
            configuration, ServerState(), {}, head_seconds=30, keep_alive_seconds=30, most_connections=10
        )

    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport, _ = await loop.connect_accepted_socket(protocol, theirs)
    received = bytearray()

    async def read() -> None:
        try:
            while data := await loop.sock_recv(ours, 1 << 20):
                received.extend(data)
        except ConnectionError:
            pass

    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(30):
            try:
                for piece in pieces:
                    await loop.sock_sendall(ours, piece)
                    # A socket pair delivers at once: the server's next turn reads this piece alone.
                    for _ in range(3):
                        await asyncio.sleep(0)
            except ConnectionError:
                pass
            await reading
    finally:
        reading.cancel()
        if not transport.is_closing():
            transport.abort()
        ours.close()
    return bytes(received)


END_OF_TALK = request("GET /end HTTP/1.1", "Connection: close")


@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_a_split_anywhere_changes_nothing(upgrade: str) -> None:
    """A split at any byte changes no reply: one reply per request, with its own body."""
    asks = f"Connection: Upgrade\r\nUpgrade: {upgrade}"
    sent = (
        request("POST /one HTTP/1.1", asks, body=SMUGGLED)
        + request("POST /two HTTP/1.1", asks, chunks=[SMUGGLED[:7], SMUGGLED[7:]])
        + request("GET /three HTTP/1.1", asks)
        + END_OF_TALK
    )
    told = [b"POST /one " + SMUGGLED, b"POST /two " + SMUGGLED, b"GET /three ", b"GET /end "]
    for position in range(1, len(sent)):
        received = await talk([sent[:position], sent[position:]])
        assert [reply.body for reply in replies_in(received, ["POST", "POST", "GET", "GET"])] == told, position


MALFORMED = {
    "two lengths": request("POST /x HTTP/1.1", "Content-Length: 3", body=b"abcd"),
    "two equal lengths": request("POST /x HTTP/1.1", "Content-Length: 3", body=b"abc"),
    "a list of lengths": request("POST /x HTTP/1.1", "Content-Length: 3, 3") + b"abc",
    "a signed length": request("POST /x HTTP/1.1", "Content-Length: +3") + b"abc",
    "a length in hex": request("POST /x HTTP/1.1", "Content-Length: 0x3") + b"abc",
    "an empty length": request("POST /x HTTP/1.1", "Content-Length: "),
    "an endless length": request("POST /x HTTP/1.1", "Content-Length: 18446744073709551617") + b"a",
    "chunks and a length": request("POST /x HTTP/1.1", "Transfer-Encoding: chunked", body=SMUGGLED),
    "a length and chunks": request("POST /x HTTP/1.1", f"Content-Length: {len(SMUGGLED)}", chunks=[SMUGGLED]),
    **{
        f"the coding {coding!r}": request("POST /x HTTP/1.1", f"Transfer-Encoding: {coding}") + chunked(SMUGGLED)
        for coding in (
            *("gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "identity", "", "xchunked", "chunked;q=1"),
            *('"chunked"', "chunked,", "\x0bchunked", "chunked\x0b", "chunked\x00", "chunke\xc7"),
        )
    },
    "the coding twice": request("POST /x HTTP/1.1", "Transfer-Encoding: chunked", chunks=[SMUGGLED]),
    "a coding, then chunked": request("POST /x HTTP/1.1", "Transfer-Encoding: gzip", chunks=[SMUGGLED]),
    "chunked, then a coding": request(
        "POST /x HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"
    ) + chunked(SMUGGLED),
    "chunks in HTTP/1.0": request("POST /x HTTP/1.0", chunks=[SMUGGLED]),
    "HTTP/0.9": b"GET /x\r\n\r\n",
    "HTTP/2.0": request("GET /x HTTP/2.0"),
    "CONNECT": request("CONNECT a:80 HTTP/1.1", body=SMUGGLED),
    "CONNECT to a path": request("CONNECT /x HTTP/1.1", body=SMUGGLED),
    "a head that ends by LF": b"GET /x HTTP/1.1\nHost: a\n\n",
    "a header that ends by LF": b"POST /x HTTP/1.1\r\nHost: a\nContent-Length: 3\r\n\r\nabc",
    "a head whose end is LF": b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\nabc",
    "a header with CR": request("POST /x HTTP/1.1", "X: a\rContent-Length: 3") + b"abc",
    "a folded header": request("POST /x HTTP/1.1", "X: a", " Transfer-Encoding: chunked") + chunked(b"abc"),
    "a folded coding": request("POST /x HTTP/1.1", "Transfer-Encoding:", " chunked") + chunked(b"abc"),
    "a space before the colon": request("POST /x HTTP/1.1", "Content-Length : 3") + b"abc",
    "a header without a name": request("POST /x HTTP/1.1", ": x"),
    **{
        f"the chunk {chunk!r}": request("POST /x HTTP/1.1", "Transfer-Encoding: chunked") + chunk
        for chunk in (
            *(b"5\nabcde\r\n0\r\n\r\n", b"5 \r\nabcde\r\n0\r\n\r\n", b" 5\r\nabcde\r\n0\r\n\r\n"),
            *(b"0x5\r\nabcde\r\n0\r\n\r\n", b"-5\r\nabcde\r\n0\r\n\r\n", b"+5\r\nabcde\r\n0\r\n\r\n"),
            *(b"5\r\nabcdef\r\n0\r\n\r\n", b"5\r\nabcde\n0\r\n\r\n", b"5\r\nabcde0\r\n\r\n", b"\r\n5\r\nabcde"),
            *(b"5;a\nb\r\nabcde\r\n0\r\n\r\n", b'5;a="\r\n"\r\nabcde\r\n0\r\n\r\n', b"5;\x00\r\nabcde\r\n0\r\n\r\n"),
            *(b"g\r\n", b"f" * 17 + b"\r\n"),
            *(b"0\r\n\nGET", b"0\r\nX: y\r\n z\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("asks", [b"", b"Connection: upgrade\r\nUpgrade: websocket\r\n"], ids=["plain", "upgrade"])
async def test_a_doubtful_end_is_refused(name: str, asks: bytes) -> None:
    """A request with a doubtful end gives 400 as the last reply, alone or after other requests."""
    line, newline, rest = MALFORMED[name].partition(b"\n")
    bad = line + newline + (asks if line.endswith(b"HTTP/1.1\r") else b"") + rest
    [refused] = replies_in(await talk([bad + END_OF_TALK]), ["POST", "GET"])
    assert (refused.status, refused.headers["connection"]) == (400, "close")
    assert b'"error":' in refused.body
    good = request("POST /good HTTP/1.1", body=b"1")
    replies = replies_in(await talk([good + bad + END_OF_TALK]), ["POST", "POST", "GET"])
    assert replies[0].body == b"POST /good 1"
    assert [reply.status for reply in replies[1:]] in ([], [400])
    assert replies[-1].headers["connection"] == "close"


@pytest.mark.parametrize("asks", ["", "Connection: keep-alive\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n"])
@pytest.mark.parametrize(
    ("line", "body"),
    [("GET", b"GET /streamed "), ("POST", b"POST /streamed "), ("HEAD", b""), ("OPTIONS", b"OPTIONS /")],
)
async def test_http_1_0_is_not_sent_chunks(line: str, body: bytes, asks: str) -> None:
    """An HTTP/1.0 reply of unknown length has no chunks and ends with the connection (RFC 9112, section 6.3)."""
    path = "/" if line == "OPTIONS" else "/streamed"
    received = await talk([f"{line} {path} HTTP/1.0\r\n{asks}\r\n".encode(), b"GET /next HTTP/1.1\r\n\r\n"])
    head, _, rest = received.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"transfer-encoding" not in head
    assert rest.rstrip() == body.rstrip()


async def test_a_streamed_reply_to_http_1_0_waits_its_turn() -> None:
    """A streamed HTTP/1.0 reply comes after the reply to the request before, and is the last."""
    received = await talk([request("GET /streamed HTTP/1.1") + request("GET /streamed HTTP/1.0") + END_OF_TALK])
    first, second = replies_in(received, ["GET", "GET"])
    assert (first.body, second.body) == (b"GET /streamed ", b"GET /streamed ")
    assert (first.headers["transfer-encoding"], "transfer-encoding" in second.headers) == ("chunked", False)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("http://a/read", b"GET /read "),
        ("HTTPS://a:80/read?b=c", b"GET /read "),
        ("http://a", b"GET / "),
        ("http://[::1]:80", b"GET / "),
        ("http://a?b=/c", b"GET / "),
        ("/%72ead", b"GET /read "),
        ("//read", b"GET //read "),
    ],
)
async def test_a_target_may_be_in_any_form(target: str, told: bytes) -> None:
    """The absolute form of a target is served as its path, or as the root without a path (RFC 9112, section 3.2.2)."""
    for asks in ("X: y", "Connection: Upgrade\r\nUpgrade: h2c"):
        replies = replies_in(await talk([request(f"GET {target} HTTP/1.1", asks) + END_OF_TALK]), ["GET", "GET"])
        assert [reply.body for reply in replies] == [told, b"GET /end "]


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + END_OF_TALK, b"the PROXY protocol is not spoken here"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"a" * 12, b"the PROXY protocol is not spoken here"),
        ("GET /ä HTTP/1.1\r\n\r\n".encode(), b"this is not HTTP/1.1"),
        (request("GET read HTTP/1.1"), b"this is not HTTP/1.1"),
        (request("GET http:///read HTTP/1.1"), b"this is not HTTP/1.1"),
        (request("GET http://[::1/read HTTP/1.1"), b"this is not HTTP/1.1"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"this is not HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1"),
    ],
)
async def test_another_protocol_is_told_what_was_expected(sent: bytes, error: bytes) -> None:
    """Another protocol gets one 400 with the cause, and the connection closes."""
    [refused] = replies_in(await talk([sent]), ["GET"])
    assert (refused.status, refused.headers["connection"]) == (400, "close")
    assert error in refused.body


async def test_http_1_0_is_not_asked_to_continue() -> None:
    """An HTTP/1.0 client gets no 100, which the client would take for the reply (RFC 9110, section 10.1.1)."""
    received = await talk([request("POST /x HTTP/1.0", "Expect: 100-continue", body=b"abc")])
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"POST /x abc")


async def test_a_chunked_body_behind_a_larger_one_is_no_attack() -> None:
    """The bound on framing counts one body's bytes, even if the next body begins in the same read."""
    large = b"x" * (MAX_HEAD_BYTES * (MAX_FRAMING_PER_BYTE + 2))
    first = request("POST /first HTTP/1.1", chunks=[large, b"end"])
    second = request("POST /second HTTP/1.1", chunks=[b"a", b"b"])
    pieces = [first[:-20], first[-20:] + second[:-12], second[-12:] + END_OF_TALK]
    replies = replies_in(await talk(pieces), ["POST", "POST", "GET"])
    assert [reply.body[:14] for reply in replies] == [b"POST /first xx", b"POST /second a", b"GET /end "]


async def test_many_upgrades_in_one_read() -> None:
    """Thousands of pipelined requests with upgrade headers in one read are all served."""
    one = request("GET /a HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c")
    count = 3000
    received = await talk([one * count + END_OF_TALK])
    assert len(replies_in(received, ["GET"] * (count + 1))) == count + 1


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a conversation and its reply."""

    sent: bytes
    """The bytes of the request."""
    method: str
    """The method."""
    told: bytes | None
    """The body of the reply; ``None`` for 400."""
    last: bool
    """Whether the reply is the last."""


BODIES = st.sampled_from([b"", b"0\r\n\r\n", SMUGGLED, SMUGGLED * 2, b"\r\n", b"x" * 3000]) | st.binary(max_size=40)
EXTRA = st.sampled_from(
    [
        *("Connection: keep-alive", "Expect: 100-continue", "X: \xff\xfe", "Content-Type: text/plain", "TE: trailers"),
        *(f"Connection: Upgrade\r\nUpgrade: {upgrade}" for upgrade in UPGRADES),
        *("Connection: upgrade", "Upgrade: websocket", "upgrade: h2c\r\nUpgrade: websocket\r\ncOnNeCtIoN: x, uPgRaDe"),
    ]
)


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    if draw(st.integers(0, 9)) == 0:
        return Ask(MALFORMED[draw(st.sampled_from(sorted(MALFORMED)))], "POST", None, last=True)
    method = draw(st.sampled_from(["GET", "POST", "POST", "PUT", "OPTIONS", "HEAD", "DELETE"]))
    path = draw(st.sampled_from(["/read", "/read", "/read?a=b", "/early", "/streamed"]))
    version = draw(st.sampled_from(["1.1", "1.1", "1.1", "1.1", "1.0"]))
    framing = draw(st.sampled_from(["none", "length", "length", "chunked"] if version == "1.1" else ["none", "length"]))
    body = b"" if framing == "none" else draw(BODIES)
    headers = draw(st.lists(EXTRA, max_size=2, unique=True))
    closes = draw(st.integers(0, 9)) == 0
    line = f"{method} {path} HTTP/{version}"
    if closes:
        headers.append("Connection: close")
    if framing == "chunked":
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
        pieces = [body[start:end] for start, end in itertools.pairwise([0, *cuts, len(body)])]
        extension = draw(st.sampled_from([b"", b";a", b';a="b"']))
        trailer = draw(st.sampled_from([b"", b"X: y\r\n"]))
        sent = request(line, *headers, chunks=pieces, extension=extension, trailer=trailer)
    else:
        sent = request(line, *headers, body=None if framing == "none" else body)
    early = path == "/early"
    announced = framing == "chunked" or bool(body)
    told = f"{method} {path.partition('?')[0]} ".encode() + (b"" if early else body)
    return Ask(sent, method, b"" if method == "HEAD" else told, version == "1.0" or closes or (early and announced))


@settings(max_examples=max(100, settings().max_examples))
@given(st.lists(asks(), min_size=1, max_size=5), st.lists(st.integers(0, 4000), max_size=6))
@example([Ask(request("POST /read HTTP/1.1", body=b"a"), "POST", b"POST /read a", last=False)] * 3, [1])
def test_replies_match_requests(conversation: list[Ask], cuts: list[int]) -> None:
    """Pipelined requests with any bodies and any splits get replies in order, up to the first doubtful request."""
    sent = b"".join(ask.sent for ask in conversation) + END_OF_TALK
    whole = [*conversation, Ask(END_OF_TALK, "GET", b"GET /end ", last=True)]
    served = list(itertools.takewhile(lambda ask: not ask.last, whole))
    served.append(whole[len(served)])
    ends = [0, *sorted(cut % len(sent) for cut in cuts), len(sent)]
    received = asyncio.run(talk([sent[start:end] for start, end in itertools.pairwise(ends) if start < end]))
    replies = replies_in(received, [ask.method for ask in served])
    if served[-1].told is None:
        assert [reply.status for reply in replies[len(served) - 1 :]] in ([], [400])
        served.pop()
    assert [reply.body for reply in replies[: len(served)]] == [ask.told for ask in served]
