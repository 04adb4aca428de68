"""``Retry-After`` of a source bounds the next attempt, whatever faults the other sources have."""

import asyncio
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import GatewayFault, RpcFault
from iidq.guarded_http.fetch import MAX_RETRY_AFTER_SECONDS, retry_after_seconds
from iidq.provenance.ethereum.chain import OnchainEntry
from iidq.provenance.ipfs.gateway import Gateway
from iidq.provenance.ipfs.gateways import IpfsGateways
from iidq.provenance.report import FetchedManifest
from iidq.provenance.verify import verify
from iidq.queue.backoff import RetryPolicy
from iidq.subject import Subject
from tests.provenance.rpc_world import CONTENT_HASH, REGISTRY, Handler, Server, error
from tests.provenance.test_chain import chain_of, refuses, registered_world
from tests.unit.guarded_http.scripted_server import always, response, serving
from tests.unit.ipfs.test_gateways import ABSENT, LIMIT, URI, WRONG, ipfs


class Source(NamedTuple):
    """A source's way of failing, and its Retry-After in seconds."""

    how: str
    wish: int | None


SOURCES = [
    Source("limited", 60),
    Source("limited", 20),
    Source("limited", None),
    Source("limited", 0),
    Source("broken", 40),
    Source("broken", None),
    Source("other", None),
]
# Every pair in both orders, and threes with a Retry-After in each place.
TABLE = [(one, two) for one in SOURCES for two in SOURCES if one is not two] + [
    (SOURCES[5], SOURCES[0], SOURCES[6]),
    (SOURCES[6], SOURCES[5], SOURCES[0]),
    (SOURCES[0], SOURCES[1], SOURCES[4]),
]


def earliest(sources: tuple[Source, ...]) -> int | None:
    """Return the earliest Retry-After."""
    return min((source.wish for source in sources if source.wish is not None), default=None)


def _gateway_answer(source: Source, number: int) -> Any:
    if source.how == "other":
        return WRONG if number % 2 else ABSENT
    fields = [] if source.wish is None else [f"Retry-After: {source.wish}"]
    return always(response(b"", *fields, status=429 if source.how == "limited" else 503))


async def test_the_earliest_wish_of_any_gateway_is_kept() -> None:
    """The fault carries the earliest Retry-After, for any other gateways in any order."""
    for sources in TABLE:
        one, two = (_gateway_answer(source, number) for number, source in enumerate(sources[:2]))
        three = _gateway_answer(sources[-1], 0)
        async with serving(one) as first, serving(two) as second, serving(three) as third:
            servers = (first, second, third)[: len(sources)]
            gateways = IpfsGateways([Gateway(server.url) for server in servers], max_bytes=LIMIT)
            with pytest.raises(GatewayFault) as caught:
                await gateways.fetch(ipfs(URI))
            await gateways.aclose()
        assert caught.value.retry_after_seconds == earliest(sources), sources


async def test_the_wish_of_a_gateway_that_is_left_alone_is_kept() -> None:
    """A gateway is not asked during its Retry-After, and still bounds the next attempt."""
    limited, broken = Source("limited", 60), Source("broken", None)
    async with serving(_gateway_answer(limited, 0)) as first, serving(_gateway_answer(broken, 0)) as second:
        gateways = IpfsGateways([Gateway(first.url), Gateway(second.url)], max_bytes=LIMIT)
        for _ in range(2):
            with pytest.raises(GatewayFault) as caught:
                await gateways.fetch(ipfs(URI))
            assert caught.value.retry_after_seconds is not None
            assert 40 < caught.value.retry_after_seconds <= 60
        await gateways.aclose()
        assert (len(first.requests), len(second.requests)) == (1, 2)


async def test_a_gateway_that_says_404_may_still_wish() -> None:
    """The Retry-After of a 404 counts like any other while another gateway fails."""
    absent = always(response(b"", "Retry-After: 30", status=404))
    async with serving(absent) as first, serving(always(response(status=500))) as second:
        gateways = IpfsGateways([Gateway(first.url), Gateway(second.url)], max_bytes=LIMIT)
        with pytest.raises(GatewayFault) as caught:
            await gateways.fetch(ipfs(URI))
        await gateways.aclose()
    assert caught.value.retry_after_seconds == 30


def _endpoint_answer(source: Source) -> Handler:
    if source.how == "other":
        return refuses
    headers = {} if source.wish is None else {"retry-after": str(source.wish)}

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429 if source.how == "limited" else 503, headers=headers)

    return answer


async def test_the_earliest_wish_of_any_endpoint_is_kept() -> None:
    """An endpoint's Retry-After bounds the next attempt, whichever endpoint fails last and how."""
    for sources in TABLE:
        chain = chain_of(*map(_endpoint_answer, sources))
        with pytest.raises(RpcFault) as caught:
            await chain.read_entry(REGISTRY, CONTENT_HASH)
        assert caught.value.retry_after_seconds == earliest(sources), sources


async def test_the_wish_of_an_endpoint_that_is_left_alone_is_kept() -> None:
    """An endpoint is not asked during its Retry-After, and still bounds the next attempt."""
    chain = chain_of(_endpoint_answer(Source("limited", 60)), refuses)
    for _ in range(2):
        with pytest.raises(RpcFault) as caught:
            await chain.read_entry(REGISTRY, CONTENT_HASH)
        assert caught.value.retry_after_seconds is not None
        assert 40 < caught.value.retry_after_seconds <= 60


async def test_an_endpoints_wish_is_not_taken_for_anothers() -> None:
    """Every job gets the Retry-After of the limited endpoint, and the other endpoint is asked again without a wait."""
    posts: list[int] = []

    async def lost(request: httpx.Request) -> httpx.Response:
        posts.append(1)
        raise httpx.ConnectError("no")

    chain = chain_of(_endpoint_answer(Source("limited", 60)), lost)
    for reads in (5, 1):
        asked = [chain.read_entry(REGISTRY, CONTENT_HASH) for _ in range(reads)]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, RpcFault)
            assert outcome.retry_after_seconds is not None
            assert 40 < outcome.retry_after_seconds <= 60
    assert len(posts) == 2


@pytest.mark.parametrize("limited_first", [True, False])
async def test_a_wish_outweighs_a_refusal_of_the_search(limited_first: bool) -> None:
    """The search is not given up while an endpoint with a Retry-After may still find the transaction."""
    world = registered_world()
    onchain = await chain_of(Server(world.answer)).read_entry(REGISTRY, CONTENT_HASH)
    refusing = Server(lambda method, params: error("no") if method != "eth_chainId" else world.answer(method, params))
    handlers: list[Handler] = [_endpoint_answer(Source("limited", 60)), refusing]
    chain = chain_of(*(handlers if limited_first else handlers[::-1]))
    with pytest.raises(RpcFault) as caught:
        await chain.find_registration(onchain)
    assert caught.value.retry_after_seconds == 60


@pytest.mark.parametrize(("manifest_wish", "registry_wish"), [(None, 60), (5, 60), (60, 5), (60, None), (None, None)])
async def test_the_registrys_wish_outlasts_the_manifests_fault(
    manifest_wish: float | None, registry_wish: int | None
) -> None:
    """A job with faults of manifest and registry is not tried before the later Retry-After."""
    answered = asyncio.Event()

    class Manifests:
        async def fetch(self, manifest_uri: str) -> FetchedManifest:
            await answered.wait()
            raise GatewayFault("no", code="fetch.status", retry_after_seconds=manifest_wish)

    chain = chain_of(_endpoint_answer(Source("limited", registry_wish)))
    read_entry = chain.read_entry

    async def read(registry_address: str, content_hash: str) -> OnchainEntry:
        try:
            return await read_entry(registry_address, content_hash)
        finally:
            answered.set()

    chain.read_entry = read  # type: ignore[method-assign]
    with pytest.raises(GatewayFault) as caught:
        await verify(Subject(CONTENT_HASH, URI, REGISTRY), Manifests(), chain, lambda percent: None)
    later = max((wish for wish in (manifest_wish, registry_wish) if wish is not None), default=None)
    assert (caught.value.code, caught.value.retry_after_seconds) == ("fetch.status", later)


@pytest.mark.parametrize(
    ("status", "headers", "refusal", "seconds"),
    [
        (200, {}, {"data": {"backoff_seconds": 1.5}}, 1.5),
        (200, {}, {"data": {"backoff_seconds": 1e9}}, MAX_RETRY_AFTER_SECONDS),
        (200, {}, {"data": {"backoff_seconds": "soon"}}, None),
        (200, {}, {"data": ["soon"]}, None),
        (200, {"retry-after": "7"}, {}, 7),
        (403, {"retry-after": "7"}, {}, 7),
        (429, {"retry-after": "7"}, {}, 7),
    ],
)
@pytest.mark.parametrize("calls", [1, 2], ids=["alone", "batch"])
async def test_an_endpoints_wish_is_read_wherever_it_is(
    status: int, headers: dict[str, str], refusal: dict[str, Any], seconds: float | None, calls: int
) -> None:
    """An endpoint's Retry-After is read from the header of any status and from Infura's error, alone and in a batch."""
    limit = {"error": {"code": -32005, "message": "project ID request rate exceeded", **refusal}}
    server = Server(lambda method, params: limit)

    async def handler(request: httpx.Request) -> httpx.Response:
        answer = await server(request)
        return httpx.Response(status, headers=headers, content=answer.content)

    (rpc,) = chain_of(handler).endpoints
    for outcome in await asyncio.gather(*(rpc.call("echo", n) for n in range(calls)), return_exceptions=True):
        assert isinstance(outcome, RpcFault)
        assert outcome.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        ("Sun, 06 Nov 1994 23:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
        ("60, 60", 60),
        ("1.5", 1.5),
        ("-5", None),
        ("inf", None),
        ("Sun, 99 Nov 1994 08:50:37 GMT", None),
    ],
)
def test_every_form_of_retry_after(text: str, seconds: float | None) -> None:
    """Retry-After is read in seconds and in the three date forms of HTTP in UTC, by the answer's own clock."""
    assert retry_after_seconds({"retry-after": text, "date": "Sun, 06 Nov 1994 08:49:37 GMT"}) == seconds


@given(st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,5} [0-9:]{1,9} .{0,6}"))
def test_any_retry_after_is_a_wish_or_none(text: str) -> None:
    """Any text as Retry-After gives a bounded number of seconds, or none."""
    seconds = retry_after_seconds({"retry-after": text, "date": text})
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


@given(st.floats(0, MAX_RETRY_AFTER_SECONDS), st.floats(0, 1, exclude_max=True), st.integers(0, 8))
def test_no_attempt_begins_before_the_wish(wish: float, draw: float, retries: int) -> None:
    """A fault's Retry-After is the lower bound of the delay."""
    delay = RetryPolicy().delay_seconds(
        retry_count=retries, max_attempts=10, temporary=True, draw=draw, wish_seconds=wish
    )
    assert delay is not None
    assert delay >= wish
