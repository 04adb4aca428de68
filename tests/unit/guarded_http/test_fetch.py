"""The guarded fetch, against real servers with faults."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import FetchRefused, GatewayFault
from iidq.guarded_http.addresses import IpAddress
from iidq.guarded_http.dialing import Dialer, SystemResolver
from iidq.guarded_http.fetch import MAX_RETRY_AFTER_SECONDS, WebAnswer, WebFetcher, retry_after_seconds
from iidq.guarded_http.fetch_policy import PUBLIC_ONLY, FetchPolicy
from iidq.guarded_http.http_connection import Deadlines
from iidq.guarded_http.url import parse_web_url
from tests.unit.guarded_http.scripted_server import Answer, Request, always, never, response, serving

LOCAL = FetchPolicy.opening(["127.0.0.1"])
IMPATIENT_AT_FIRST = Deadlines(connect_seconds=20, first_byte_seconds=0.2, idle_seconds=20, total_seconds=30)
IMPATIENT_IN_BETWEEN = Deadlines(connect_seconds=20, first_byte_seconds=20, idle_seconds=0.2, total_seconds=30)
IMPATIENT_IN_ALL = Deadlines(connect_seconds=20, first_byte_seconds=20, idle_seconds=20, total_seconds=0.5)
PATIENT = Deadlines(connect_seconds=20, first_byte_seconds=20, idle_seconds=20, total_seconds=30)
TLS = Path(__file__).parents[2] / "tls"


class Names:
    """A resolver with answers from the test in turn; the last is repeated."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[IpAddress]:
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [ip_address(text) for text in answer]


@asynccontextmanager
async def fetching(
    policy: FetchPolicy = LOCAL, deadlines: Deadlines = PATIENT, names: Names | None = None
) -> AsyncIterator[WebFetcher]:
    """Yield a fetcher, closed at the end."""
    fetcher = WebFetcher(policy, deadlines=deadlines, resolve=names)
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


async def get(
    url: str,
    policy: FetchPolicy = LOCAL,
    *,
    deadlines: Deadlines = PATIENT,
    names: Names | None = None,
    max_bytes: int = 1000,
) -> WebAnswer:
    """Fetch once."""
    async with fetching(policy, deadlines, names) as fetcher:
        return await fetcher.fetch(parse_web_url(url, allow_private=policy), max_bytes=max_bytes)


async def test_a_body_arrives_and_the_request_is_plain() -> None:
    """The request asks for identity encoding, names its host, and carries no credentials or cookies."""
    async with serving(always(response(b"{}", "Set-Cookie: a=b"))) as server:
        answer = await get(f"{server.url}/a%20b?c=d#e")
    assert (answer.status, answer.body, answer.complete, answer.redirected) == (200, b"{}", True, False)
    sent = server.requests[0]
    assert sent.target == "/a%20b?c=d"
    assert sent.headers["accept-encoding"] == "identity"
    assert sent.headers["host"] == f"127.0.0.1:{server.port}"
    assert set(sent.headers) == {"host", "user-agent", "accept-encoding"}


async def test_a_connection_is_used_again_and_a_closed_one_replaced() -> None:
    """Two fetches share a connection; after the server has closed the connection, the next fetch opens another."""
    async with serving(always(response(b"{}"))) as server, fetching() as fetcher:
        uri = parse_web_url(server.url, allow_private=LOCAL)
        for _ in range(2):
            assert (await fetcher.fetch(uri, max_bytes=10)).body == b"{}"
        assert server.connections == 1

    async def close_when_asked_again(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 2:
            writer.transport.abort()
        else:
            writer.write(response(b"{}"))

    async with serving(close_when_asked_again) as server, fetching() as fetcher:
        uri = parse_web_url(server.url, allow_private=LOCAL)
        for _ in range(2):
            assert (await fetcher.fetch(uri, max_bytes=10)).body == b"{}"
        assert server.connections == 2


async def test_proxy_variables_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy variables are not followed: a proxy would be a way around every check."""
    async with serving(always(response(b"by proxy"))) as proxy, serving(always(response(b"direct"))) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert (await get(server.url)).body == b"direct"


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["::1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["fe80::1%1"],
        ["8.8.8.8", "127.0.0.1"],
        ["2606:4700::1111", "fd00::1"],
    ],
)
async def test_a_name_that_leads_to_a_private_address_is_refused(answers: list[str]) -> None:
    """A name with a private address among public ones is refused, and the message does not quote the answer."""
    with pytest.raises(FetchRefused) as caught:
        await get("http://manifest.test/", PUBLIC_ONLY, names=Names(answers))
    assert caught.value.code == "fetch.refused.address"
    assert not any(answer in caught.value.message for answer in answers)


async def test_localhost_is_refused_by_the_systems_resolver() -> None:
    """The operating system's names for the local machine are refused."""
    with pytest.raises(FetchRefused, match="public"):
        await get("http://localhost/", PUBLIC_ONLY)


async def test_a_name_in_an_opened_network_is_reached_and_looked_up_once() -> None:
    """A name in an opened network is connected at the checked address, without a second look-up."""
    names = Names(["::1", "127.0.0.1"], ["10.0.0.1"])
    async with serving(always(response(b"{}"))) as server:
        answer = await get(f"http://manifest.test:{server.port}/", names=names)
    assert answer.body == b"{}"
    assert names.asked == ["manifest.test"]
    assert server.requests[0].headers["host"] == f"manifest.test:{server.port}"


async def test_a_name_that_changes_between_lookups_is_checked_every_time() -> None:
    """A name is refused for a second connection if the name then leads to a private address."""
    names = Names(["127.0.0.1"], ["127.0.0.2"])

    async def redirect_to_itself(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"", "Location: /again", "Connection: close", status=302))
        writer.close()

    async with serving(redirect_to_itself) as server:
        with pytest.raises(FetchRefused) as caught:
            await get(f"http://manifest.test:{server.port}/", names=names)
    assert caught.value.code == "fetch.refused.address"
    assert names.asked == ["manifest.test", "manifest.test"]
    assert len(server.requests) == 1


async def test_another_port_needs_an_opened_address() -> None:
    """With some network opened, a public name still has only its scheme's port."""
    with pytest.raises(FetchRefused) as caught:
        await get("http://manifest.test:6379/", names=Names(["8.8.8.8"]))
    assert caught.value.code == "fetch.refused.port"


async def test_names_without_an_answer_are_temporary() -> None:
    """A name that does not resolve is a temporary fault."""
    with pytest.raises(GatewayFault, match="could not be resolved"):
        await get("http://manifest.test/", names=Names([]))
    with pytest.raises(GatewayFault, match="could not be resolved"):
        await get("http://name.invalid/", PUBLIC_ONLY)


async def test_a_slow_name_server_is_not_waited_for() -> None:
    """A slow look-up ends at the connection's deadline."""

    class Silent(Names):
        async def __call__(self, host: str) -> Sequence[IpAddress]:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    with pytest.raises(GatewayFault, match="no connection within"):
        await get("http://manifest.test/", deadlines=Deadlines(connect_seconds=0.05), names=Silent([]))


async def test_the_systems_resolver_finds_this_machine() -> None:
    """Look-ups run off the event loop and give every address once."""
    found = await SystemResolver()("localhost")
    assert ip_address("127.0.0.1") in found or ip_address("::1") in found
    assert len(found) == len(set(found))


async def test_a_refused_connection_is_temporary() -> None:
    """A refused connection is a temporary fault; the other addresses of the name are tried first."""
    async with serving(always(response())) as server:
        port = server.port
    with pytest.raises(GatewayFault, match="could not be connected to"):
        await get(f"http://127.0.0.1:{port}/")
    policy = FetchPolicy.opening(["127.0.0.0/8"])
    async with serving(always(response(b"{}"))) as server:
        answer = await get(f"http://manifest.test:{server.port}/", policy, names=Names(["127.0.0.9", "127.0.0.1"]))
    assert answer.body == b"{}"


def redirecting(*locations: str) -> Answer:
    """Send the n-th request on to the n-th location; then answer with a body."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        number = int(request.target.strip("/") or 0)
        if number < len(locations):
            writer.write(response(b"moved", f"Location: {locations[number]}", status=301 + number))
        else:
            writer.write(response(b"{}"))

    return answer


async def test_three_redirects_are_followed() -> None:
    """The third redirect is the last; the answer names the final URL."""
    async with serving(redirecting("/1", "2", "/3")) as server:
        answer = await get(f"{server.url}/0")
    assert (answer.body, answer.redirected, answer.url.target) == (b"{}", True, "/3")


async def test_a_redirect_loop_ends() -> None:
    """A redirect loop is refused after three redirects."""
    async with serving(always(response(b"", "Location: /", status=302))) as server:
        with pytest.raises(FetchRefused) as caught:
            await get(server.url)
    assert caught.value.code == "fetch.refused.redirects"
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("location", "rule"),
    [
        ("http://127.0.0.2:{port}/", "address"),
        ("http://[::1]:{port}/", "address"),
        ("http://2130706433:{port}/", "address"),
        ("http://169.254.169.254/latest/meta-data/", "address"),
        ("http://8.8.8.8:{port}/", "port"),
        ("http://user@127.0.0.1:{port}/", "credentials"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://127.0.0.1:{port}/_x", "scheme"),
    ],
)
async def test_a_redirect_into_the_private_network_is_refused(location: str, rule: str) -> None:
    """A redirect is checked like a fresh URL, and nothing is sent there."""
    async with serving(always(response())) as inside:
        moved = response(b"", f"Location: {location.format(port=inside.port)}", status=307)
        async with serving(always(moved)) as server:
            with pytest.raises(FetchRefused) as caught:
                await get(server.url)
    assert caught.value.code == f"fetch.refused.{rule}"
    assert inside.connections == 0


async def test_credentials_stay_with_their_host() -> None:
    """Header fields for a host are not sent to a redirect's host."""
    async with serving(always(response(b"{}"))) as other:
        moved = response(b"", f"Location: {other.url}/", status=302)
        async with serving(always(moved)) as server, fetching() as fetcher:
            uri = parse_web_url(server.url, allow_private=LOCAL)
            await fetcher.fetch(uri, max_bytes=10, headers=(("Authorization", "Basic secret"),))
    assert server.requests[0].headers["authorization"] == "Basic secret"
    assert "authorization" not in other.requests[0].headers


async def test_a_gzip_bomb_is_refused_unopened() -> None:
    """A compressed answer is refused by its header."""
    bomb = gzip.compress(bytes(10_000_000))
    async with serving(always(response(bomb, "Content-Encoding: gzip"))) as server:
        with pytest.raises(FetchRefused) as caught:
            await get(server.url)
    assert caught.value.code == "fetch.refused.encoding"


def endless(piece: bytes, *, head: bytes) -> Answer:
    """Return a body without end."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("piece", "head"),
    [
        (b"x" * 4096, b"HTTP/1.1 200 OK\r\n\r\n"),
        (b"x" * 4096, b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
        (b"400\r\n" + b"x" * 1024 + b"\r\n", CHUNKED),
    ],
)
async def test_an_endless_body_is_cut_off(piece: bytes, head: bytes) -> None:
    """Reading stops at the limit, and the connection is closed."""
    async with serving(endless(piece, head=head)) as server:
        answer = await get(server.url, max_bytes=10_000)
        await server.hung_up.wait()
    assert not answer.complete
    assert len(answer.body) == 10_000


@pytest.mark.parametrize(
    ("piece", "head"),
    [
        (b"1\r\nx\r\n" * 500, CHUNKED),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 10, b""),
        (b"X-Filler: x\r\n" * 100, b"HTTP/1.1 200 OK\r\n"),
        (b"x" * 1000, b""),
        (b"x" * 1000, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"),
    ],
)
async def test_answers_that_cost_more_than_they_say_are_given_up(piece: bytes, head: bytes) -> None:
    """Tiny chunks, endless hints, endless heads and garbage end the exchange."""
    async with serving(endless(piece, head=head)) as server:
        with pytest.raises(GatewayFault):
            await get(server.url, max_bytes=100_000)
        await server.hung_up.wait()


async def test_a_silent_server_is_given_up() -> None:
    """A server without a first byte in time is a temporary fault."""
    async with serving(never) as server:
        with pytest.raises(GatewayFault, match="did not answer") as caught:
            await get(server.url, deadlines=IMPATIENT_AT_FIRST)
        await server.hung_up.wait()
    assert caught.value.code == "fetch.timeout"


async def test_a_body_that_stalls_is_given_up() -> None:
    """Silence in the middle of a body ends the exchange."""

    async def stall(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"x" * 100)[:-50])
        await asyncio.Event().wait()

    async with serving(stall) as server:
        with pytest.raises(GatewayFault, match="sent nothing"):
            await get(server.url, deadlines=IMPATIENT_IN_BETWEEN)
        await server.hung_up.wait()


async def test_a_slow_loris_is_given_up() -> None:
    """A body that drips byte by byte ends at the deadline for the whole fetch."""

    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(drip) as server:
        with pytest.raises(GatewayFault, match="did not deliver within"):
            await get(server.url, deadlines=IMPATIENT_IN_ALL)
        await server.hung_up.wait()


@pytest.mark.parametrize("raw", [response(b"x" * 100)[:-50], CHUNKED + b"64\r\nxx", b"", b"HTTP/1.1 200 OK\r\nA: b"])
async def test_a_cut_off_answer_is_temporary(raw: bytes) -> None:
    """A truncated answer is never used."""

    async def hang_up(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()

    async with serving(hang_up) as server:
        with pytest.raises(GatewayFault, match="closed the connection"):
            await get(server.url)


@pytest.mark.parametrize("raw", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\r\n\r\n", b"-ERR\r\n\r\n"])
async def test_other_protocols_are_told(raw: bytes) -> None:
    """A server without HTTP is a temporary fault, and the message quotes nothing."""
    async with serving(always(raw)) as server:
        with pytest.raises(GatewayFault) as caught:
            await get(server.url, deadlines=IMPATIENT_AT_FIRST)
    assert "SSH" not in str(caught.value)
    assert "ERR" not in str(caught.value)


async def test_bodies_of_errors_are_not_read() -> None:
    """The body of a 404 is not read, and the answer reports absence."""
    async with serving(endless(b"x" * 1000, head=b"HTTP/1.1 404 No\r\n\r\n")) as server:
        answer = await get(server.url)
        await server.hung_up.wait()
    assert (answer.says_absent, answer.delivered, answer.body) == (True, False, b"")


async def test_a_cancelled_fetch_hangs_up() -> None:
    """A cancelled fetch leaves no connection behind."""
    async with serving(never) as server, fetching() as fetcher:
        uri = parse_web_url(server.url, allow_private=LOCAL)
        task = asyncio.create_task(fetcher.fetch(uri, max_bytes=10))
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.hung_up.wait()


@asynccontextmanager
async def serving_tls() -> AsyncIterator[int]:
    """Run an https server with a certificate for manifest.test."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "manifest.test.pem", TLS / "manifest.test.key")

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await listener.wait_closed()


async def test_tls_verifies_the_name_although_the_address_is_dialled() -> None:
    """The certificate must be for the URL's name; another name or an unknown issuer is refused."""
    trusting = ssl.create_default_context(cafile=TLS / "manifest.test.pem")
    names = Names(["127.0.0.1"])
    async with serving_tls() as port:
        dialer = Dialer(LOCAL, deadlines=PATIENT, resolve=names, tls=trusting)
        connection = await dialer.dial(parse_web_url(f"https://manifest.test:{port}/", allow_private=LOCAL))
        assert connection.transport.get_extra_info("ssl_object").server_hostname == "manifest.test"
        connection.abort()
        with pytest.raises(GatewayFault, match="certificate"):
            await dialer.dial(parse_web_url(f"https://other.test:{port}/", allow_private=LOCAL))
        with pytest.raises(GatewayFault, match="certificate"):
            await Dialer(LOCAL, deadlines=PATIENT, resolve=names).dial(
                parse_web_url(f"https://manifest.test:{port}/", allow_private=LOCAL)
            )


@pytest.mark.parametrize(("text", "seconds"), [("7", 7), ("0", 0), ("99999999999", 300), ("soon", None), ("", None)])
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    """Retry-After in whole seconds counts, at most five minutes; anything else does not."""
    assert retry_after_seconds({"retry-after": text}) == seconds


@given(st.integers(-10_000, 10_000))
def test_retry_after_as_a_date(offset: int) -> None:
    """Retry-After as a date counts from now, never below zero and at most five minutes."""
    at = datetime.now(UTC) + timedelta(seconds=offset)
    seconds = retry_after_seconds({"retry-after": format_datetime(at, usegmt=True)})
    assert seconds is not None
    assert max(min(offset - 60, MAX_RETRY_AFTER_SECONDS), 0) <= seconds
    assert seconds <= max(min(offset, MAX_RETRY_AFTER_SECONDS), 0)
