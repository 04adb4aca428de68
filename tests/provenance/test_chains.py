"""The choice of a job's chain."""

import asyncio
import json

import httpx
import pytest

from iidq.errors import FetchRefused, PermanentFault, RpcFault
from iidq.provenance.ethereum.chain import Chain
from iidq.provenance.ethereum.chains import Chains, check_rpc_url
from iidq.settings import Settings

URLS = {1: ("https://one.example", "https://uno.example"), 8453: ("https://base.example/KEY",)}
CHAIN_IDS = {"default.example": 8453, "one.example": 1, "allowed.example": 10}


def settings(**changes: object) -> Settings:
    values = {
        "rpc_url": "https://default.example",
        "rpc_urls": URLS,
        "rpc_allowed_urls": ("https://allowed.example/v1",),
    }
    return Settings.model_validate({**values, **changes})


async def answer_chain_id(request: httpx.Request) -> httpx.Response:
    id_ = json.loads(request.content)["id"]
    if request.url.host not in CHAIN_IDS:
        return httpx.Response(503)
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": id_, "result": hex(CHAIN_IDS[request.url.host])})


def chains(**changes: object) -> Chains:
    return Chains(settings(**changes), httpx.AsyncClient(transport=httpx.MockTransport(answer_chain_id)))


def urls(chain: Chain) -> list[str]:
    return [endpoint.url for endpoint in chain.endpoints]


async def test_the_default_chain_gets_its_fallbacks() -> None:
    """RPC_URL comes first, with the endpoints of the same chain as fallbacks."""
    chain = await chains().choose(None, None)
    assert (urls(chain), chain.chain_id) == (["https://default.example", "https://base.example/KEY"], 8453)


async def test_a_listed_default_needs_no_question() -> None:
    """If RPC_URL is listed in RPC_URLS_<id>, the chain is known even while the endpoint is down."""
    chain = await chains(rpc_url="https://uno.example").choose(None, None)
    assert (urls(chain), chain.chain_id) == (["https://uno.example", "https://one.example"], 1)


async def test_a_listed_default_is_known_with_or_without_its_final_slash() -> None:
    """An endpoint with a final slash is the same endpoint."""
    chain = await chains(rpc_url="https://uno.example/").choose(None, None)
    assert chain.chain_id == 1


async def test_the_block_tag_is_the_operators() -> None:
    """RPC_BLOCK_TAG chooses the block of every chain."""
    assert (await chains(rpc_block_tag="finalized").choose(None, None)).tag == "finalized"
    assert (await chains(rpc_block_tag="safe").choose(None, 1)).tag == "safe"
    assert (await chains().choose("https://one.example", None)).tag == "latest"


async def test_jobs_that_ask_at_once_get_one_default_chain() -> None:
    """The first jobs of a process, all waiting for the chain's id, share the endpoints' record of health."""
    several = chains()
    first, second = await asyncio.gather(several.choose(None, None), several.choose(None, None))
    assert first is second


async def test_a_chain_id_chooses_its_endpoints() -> None:
    """A job's chainId selects the listed endpoints, or RPC_URL on the same chain."""
    several = chains()
    assert urls(await several.choose(None, 1)) == list(URLS[1])
    assert urls(await chains(rpc_urls={}).choose(None, 8453)) == ["https://default.example"]
    default = await several.choose(None, None)
    assert await several.choose(None, 8453) is default


async def test_an_unknown_chain_is_a_permanent_fault() -> None:
    """An unconfigured chain is a permanent fault."""
    with pytest.raises(PermanentFault) as caught:
        await chains().choose(None, 5)
    assert caught.value.code == "rpc.chain_not_configured"


async def test_an_unreachable_default_is_a_temporary_fault() -> None:
    """While the chain of RPC_URL is unknown, a job without chainId gets a temporary fault, and a job with chainId its
    endpoints.
    """
    several = chains(rpc_url="https://down.example")
    with pytest.raises(RpcFault):
        await several.choose(None, None)
    assert urls(await several.choose(None, 1)) == list(URLS[1])


async def test_a_rpc_url_is_used_alone() -> None:
    """A job's own rpcUrl is the only endpoint of its reads."""
    assert urls(await chains().choose("https://allowed.example/v1/", None)) == ["https://allowed.example/v1"]


async def test_a_rpc_url_on_another_chain_is_a_permanent_fault() -> None:
    """A job with contradicting rpcUrl and chainId fails at once."""
    with pytest.raises(PermanentFault) as caught:
        await chains().choose("https://one.example", 10)
    assert caught.value.code == "rpc.chain_mismatch"


async def test_the_same_chain_is_shared() -> None:
    """Jobs of the same chain share endpoints and health."""
    several = chains()
    assert await several.choose(None, None) is await several.choose(None, None)
    assert await several.choose("https://one.example", 1) is await several.choose("https://one.example", None)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("https://default.example", "https://default.example"),
        ("https://default.example/", "https://default.example"),
        ("https://base.example/KEY", "https://base.example/KEY"),
        ("https://***@private.example/v1?key=***", "https://me:pass@private.example/v1?key=K"),
        ("https://me:pass@private.example/v1?key=K", "https://me:pass@private.example/v1?key=K"),
    ],
)
def test_the_operators_urls_are_allowed(url: str, meant: str) -> None:
    """A job may name a configured or allowed endpoint, also in the redacted form of stored jobs."""
    allowed = settings(rpc_allowed_urls=("https://me:pass@private.example/v1?key=K",))
    assert check_rpc_url(allowed, url) == meant


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "https://default.example.evil.example",
        "https://default.example@evil.example",
        "https://default.example/other",
        "http://default.example",
        "https://DEFAULT.example:444",
        "http://127.0.0.1:8545",
        "https://base.example",
    ],
)
def test_any_other_url_is_refused(url: str) -> None:
    """A URL not named by the operator is a permanent refusal."""
    with pytest.raises(FetchRefused) as caught:
        check_rpc_url(settings(), url)
    assert caught.value.code.startswith("fetch.refused")
    assert not caught.value.temporary
