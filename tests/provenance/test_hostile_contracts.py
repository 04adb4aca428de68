"""Hostile contracts, named as registry or as wallet, cannot harm the reads of other jobs."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.embedded.demo_registry import deploy
from iidq.errors import IidqError, RegistryFault, RpcFault
from iidq.provenance.ethereum import rpc as rpc_module
from iidq.provenance.ethereum.chain import Chain, OnchainEntry, PinnedBlock
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.ethereum.jsonrpc import AnswerTooLong, BatchRefused, decode
from iidq.provenance.ethereum.registry import Entry
from iidq.provenance.ethereum.rpc import MAX_CONTRACT_ANSWER_BYTES, RpcEndpoint
from iidq.provenance.ethereum.rpc_http import open_http
from tests.provenance.rpc_world import (
    CHAIN_ID,
    CONTENT_HASH,
    CREATOR,
    REGISTRY,
    Server,
    World,
    endpoint,
    error,
)
from tests.provenance.test_chain import TIMES, chain_of, registered_world

HOSTILE = "0x" + "bd" * 20
DIGEST, SIGNATURE = bytes(32), bytes(65)
MEGABYTES = {"result": "0x" + "00" * (2 << 20)}


def told(params: list[Any]) -> Any:
    """Return the contract of a call, if any."""
    first = params[0] if params else None
    return first.get("to") or first.get("address") if isinstance(first, dict) else None


def world_with(answer: dict[str, Any], address: str = HOSTILE) -> World:
    """Return a world where the contract at ``address`` answers every call with ``answer``."""
    world = registered_world()
    usual = world.answer

    def answered(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "eth_call" and params[0]["to"] == address:
            return answer
        return {"result": "0x60"} if method == "eth_getCode" else usual(method, params)

    world.answer = answered  # type: ignore[method-assign]
    return world


def onchain(creator: str = HOSTILE) -> OnchainEntry:
    block = PinnedBlock(CHAIN_ID, 999, World(times=TIMES).block_hash(999), TIMES[999], "latest")
    return OnchainEntry(REGISTRY, CONTENT_HASH, Entry(creator, CONTENT_HASH, "", TIMES[600]), block, ())


async def test_calls_to_a_contract_share_no_body_with_others_and_have_a_gas_limit() -> None:
    """A body to a contract contains no calls to other contracts, and no call may burn more than 16 million gas."""
    bodies: list[list[dict[str, Any]]] = []
    server = Server(registered_world().answer)

    async def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        bodies.append(body if isinstance(body, list) else [body])
        return await server(request)

    chain = chain_of(handler)
    strange = ["0x" + f"{number:040x}" for number in range(1, 6)]
    reads = [chain.ask_wallet(onchain(address), DIGEST, SIGNATURE) for address in strange]
    await asyncio.gather(chain.read_entry(REGISTRY, CONTENT_HASH), *reads)
    about = [{told(call["params"]) for call in body} - {None} for body in bodies]
    assert max(map(len, about)) == 1
    assert set().union(*about) == {REGISTRY, *strange}
    calls = [call for body in bodies for call in body if call["method"] == "eth_call"]
    assert {call["params"][0]["gas"] for call in calls} == {hex(16_000_000)}
    # The chain's head is shared by all reads, and no contract can influence its body.
    heads = [body for body in bodies if any(call["params"] == ["latest", False] for call in body)]
    assert all(told(call["params"]) is None for body in heads for call in body)


async def test_jobs_of_one_registry_share_a_body() -> None:
    """Simultaneous reads of the same registry share a body."""
    server = Server(registered_world().answer)
    chain = chain_of(server)
    await asyncio.gather(
        *(chain.read_entry(REGISTRY, f"0x{number:064x}") for number in range(40)), return_exceptions=True
    )
    assert server.posts[-1] == 41


@pytest.mark.parametrize(
    ("answer", "words"),
    [(MEGABYTES, "longer than 1,048,576 bytes"), (error("execution reverted: " + "x" * (2 << 20), 3), "longer than")],
    ids=["returns megabytes", "reverts with megabytes"],
)
async def test_megabytes_are_the_contracts_fault_alone(answer: dict[str, Any], words: str) -> None:
    """A job with a registry of megabytes fails at once; other jobs of the same moment and the endpoint's health are
    unharmed.
    """
    server, second = Server(world_with(answer).answer), registered_world()
    chain = chain_of(server, Server(second.answer))
    honest, hostile, *more = await asyncio.gather(
        chain.read_entry(REGISTRY, CONTENT_HASH),
        chain.read_entry(HOSTILE, CONTENT_HASH),
        chain.read_entry(REGISTRY, CONTENT_HASH),
        return_exceptions=True,
    )
    assert isinstance(hostile, RegistryFault)
    assert words in hostile.message
    assert all(isinstance(read, OnchainEntry) and len(read.sources) == 1 for read in (honest, *more))
    # The endpoint is still asked first.
    assert isinstance(await chain.read_entry(REGISTRY, CONTENT_HASH), OnchainEntry)
    assert "eth_call" not in second.asked


@pytest.mark.parametrize("answer", [MEGABYTES, error("execution reverted", 3), error("out of gas")])
async def test_a_wallet_that_answers_with_anything_but_yes_has_not_accepted(answer: dict[str, Any]) -> None:
    """A wallet that answers with megabytes, a revert or an exhausted gas limit has not accepted the signature. The
    endpoint stays first.
    """
    server, second = Server(world_with(answer).answer), registered_world()
    chain = chain_of(server, Server(second.answer))
    for _ in range(3):
        assert (await chain.ask_wallet(onchain(), DIGEST, SIGNATURE)).accepts is False
    assert "eth_call" not in second.asked


class _Endless(httpx.AsyncByteStream):
    """A body without end; counts the bytes read."""

    def __init__(self) -> None:
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += 1 << 16
            yield b" " * (1 << 16)


async def test_a_long_answer_is_cut_while_it_comes() -> None:
    """A contract's answer is read up to the bound and one chunk, not further."""
    body = _Endless()

    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=body)

    with pytest.raises(AnswerTooLong):
        await endpoint(handler).call("eth_call", {"to": HOSTILE}, "latest", contract=HOSTILE)
    assert body.taken <= MAX_CONTRACT_ANSWER_BYTES + (1 << 16)


async def test_a_body_that_is_too_long_is_asked_again_in_parts() -> None:
    """Calls in a body with an endless answer all get answers; only the endless call fails."""

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        return MEGABYTES if params[0] == 77 else {"result": params[0]}

    server = Server(answer)
    rpc = endpoint(server)
    asked = [rpc.call("eth_call", number, contract=HOSTILE) for number in range(100)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(outcomes.pop(77), AnswerTooLong)
    assert outcomes == [number for number in range(100) if number != 77]
    assert (len(server.posts), rpc.batch_limit) == (15, 100)


async def test_calls_that_are_too_long_together_are_asked_apart() -> None:
    """A body of other calls is bounded too, and beyond the bound every call still gets an answer."""
    server = Server(lambda method, params: {"result": "x" * 400})
    rpc = endpoint(server, max_answer_bytes=1000)
    assert await asyncio.gather(*(rpc.call("echo", number) for number in range(8))) == ["x" * 400] * 8
    assert server.posts[0] == 8
    with pytest.raises(RpcFault) as caught:
        await endpoint(Server(lambda method, params: {"result": "x" * 2000}), max_answer_bytes=1000).call("echo")
    assert caught.value.code == "rpc.too_long"


async def test_the_page_of_an_error_is_not_taken_for_a_contracts_answer() -> None:
    """HTTP 502 is a temporary fault of the endpoint, for an error page of any length."""

    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(502, text="x" * (2 << 20))

    with pytest.raises(RpcFault) as caught:
        await endpoint(handler).call("eth_call", {}, contract=HOSTILE)
    assert caught.value.code == "rpc.http_status"


async def test_long_answers_are_decoded_beside_the_event_loop() -> None:
    """A long decode does not block the event loop."""
    threads: list[tuple[bool, bool]] = []

    def watched(body: bytes, ids: Any) -> Any:
        threads.append((len(body) > 300_000, threading.current_thread() is threading.main_thread()))
        return decode(body, ids)

    rpc = endpoint(Server(lambda method, params: {"result": "0x" + "00" * params[0]}))
    with patch.object(rpc_module, "decode", watched):
        await rpc.call("eth_call", 200_000, contract=HOSTILE)
        await rpc.call("eth_call", 10, contract=HOSTILE)
    assert threads == [(True, False), (False, True)]


async def test_slow_contracts_hold_up_nothing_else() -> None:
    """Any number of slow contracts leaves other calls and the endpoint's connections free."""
    hanging, most, heard = 0, 0, asyncio.Event()
    server = Server(registered_world().answer)

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal hanging, most
        if b"eth_call" in request.content:
            hanging += 1
            most = max(most, hanging)
            heard.set()
            await asyncio.Event().wait()
        return await server(request)

    rpc = endpoint(handler)
    slow = [asyncio.create_task(rpc.call("eth_call", n, contract=f"0x{n % 60:040x}")) for n in range(300)]
    await heard.wait()
    assert await rpc.call("eth_getBlockByNumber", "latest", False) is not None
    assert most == 32
    await rpc.aclose()
    assert all(isinstance(outcome, RpcFault) for outcome in await asyncio.gather(*slow, return_exceptions=True))


async def test_endless_events_leave_the_transaction_unfound() -> None:
    """Megabytes of events for a hash give a proof without a transaction, with the reason."""
    world = registered_world()
    world.logs = [{**world.logs[0], "data": "0x" + "00" * 1000}] * 1000
    chain = chain_of(Server(world.answer))
    registration = await chain.find_registration(await chain.read_entry(REGISTRY, CONTENT_HASH))
    assert registration.tx_hash is None
    assert "too long" in registration.reason


@pytest.mark.parametrize("returned_bytes", [2_000_000, 0x7FFFFFFF], ids=["megabytes", "all its gas"])
async def test_a_hostile_registry_on_a_real_chain(chain_url: str, returned_bytes: int) -> None:
    """A contract that returns megabytes, or runs out of gas, is no ContentRegistry."""
    runtime = b"\x63" + returned_bytes.to_bytes(4) + b"\x60\x00\xf3"  # PUSH4 size, PUSH1 0, RETURN
    creation = b"\x67" + runtime + bytes.fromhex("60005260086018f3")
    address = await deploy(chain_url, DEVELOPMENT_KEYS[5], creation)
    async with open_http() as http:
        rpc = RpcEndpoint(chain_url, http)
        with pytest.raises(RegistryFault):
            await Chain([rpc]).read_entry(address, CONTENT_HASH)
        await rpc.aclose()


RESULTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=10)
    | st.binary(max_size=200).map(lambda data: "0x" + data.hex()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["number", "hash", "timestamp", "topics", "address", "code", "message", "data"]), inner
        )
    ),
    max_leaves=8,
)
ANSWERS = st.dictionaries(
    st.sampled_from(["eth_chainId", "eth_getBlockByNumber", "eth_call", "eth_getCode", "eth_getLogs"]),
    st.one_of(
        RESULTS.map(lambda value: {"result": value}),
        RESULTS.map(lambda value: {"error": value}),
        RESULTS.map(lambda value: {"id": value}),
    ),
)


@given(ANSWERS, st.booleans())
async def test_any_answer_is_a_result_or_a_fault(answers: dict[str, dict[str, Any]], whole: bool) -> None:
    """Any answer to any call, alone or for a whole batch, raises nothing but faults of iidq."""
    world = registered_world()
    usual = Server(lambda method, params: answers.get(method) or world.answer(method, params))

    async def handler(request: httpx.Request) -> httpx.Response:
        if whole and answers and request.content.startswith(b"["):
            return httpx.Response(200, json=next(iter(answers.values())))
        return await usual(request)

    chain = chain_of(handler)
    with patch.object(asyncio, "sleep", _no_pause):
        for read in (
            chain.read_entry(REGISTRY, CONTENT_HASH),
            chain.ask_wallet(onchain(CREATOR), DIGEST, SIGNATURE),
            chain.find_registration(onchain(CREATOR)),
        ):
            try:
                await read
            except IidqError:
                continue
    assert len(usual.posts) < 1000


async def _no_pause(seconds: float) -> None:
    return


@given(st.binary(max_size=300) | RESULTS.map(lambda value: json.dumps(value).encode()), st.integers(1, 3))
def test_any_body_is_decoded_or_a_fault(body: bytes, calls: int) -> None:
    """A body of any bytes gives an outcome for each call, or a fault of the endpoint."""
    ids = list(range(1, calls + 1))
    try:
        assert list(decode(body, ids)) == ids
    except (RpcFault, BatchRefused):
        return
