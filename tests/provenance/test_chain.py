"""A chain behind endpoints that fail, hang, lag and reorganise."""

import asyncio
import time
from functools import partial
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from iidq.concurrency.circuit_breaker import CircuitBreaker
from iidq.errors import RegistryFault, RpcFault
from iidq.provenance.ethereum import endpoints
from iidq.provenance.ethereum.chain import Chain
from iidq.provenance.ethereum.registry import UNREGISTERED, Entry
from tests.provenance.rpc_world import (
    CHAIN_ID,
    CONTENT_HASH,
    CREATOR,
    MANIFEST_URI,
    REGISTRY,
    Handler,
    Server,
    World,
    endpoint,
    error,
    new_layout,
    old_layout,
)

TX = "0x" + "77" * 32
TIMES = [1_000 + 2 * number for number in range(1_000)]


def registered_world(number: int = 600) -> World:
    world = World(times=list(TIMES))
    world.register(number, TX)
    return world


def chain_of(
    *handlers: Handler, chain_id: int | None = CHAIN_ID, hedge_after_seconds: float = 30, **options: Any
) -> Chain:
    endpoints = [endpoint(handler, f"https://rpc{n}.example/key") for n, handler in enumerate(handlers)]
    return Chain(endpoints, chain_id=chain_id, hedge_after_seconds=hedge_after_seconds, **options)


async def hangs(request: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def refuses(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("no")


async def fault_of(chain: Chain) -> RpcFault | RegistryFault:
    with pytest.raises((RpcFault, RegistryFault)) as caught:
        await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert isinstance(caught.value, RpcFault | RegistryFault)
    return caught.value


@pytest.mark.parametrize("layout", ["old", "new"])
async def test_an_entry_is_read_at_one_block(layout: str) -> None:
    """An entry comes with number, hash and tag of the block of the read."""
    world = registered_world()
    uri = MANIFEST_URI.encode()
    world.entry = old_layout(CREATOR, CONTENT_HASH, uri, 2_200) if layout == "old" else new_layout(CREATOR, uri, 2_200)
    onchain = await chain_of(Server(world.answer)).read_entry(REGISTRY, CONTENT_HASH)
    assert onchain.entry == Entry(CREATOR, CONTENT_HASH, MANIFEST_URI, 2_200)
    assert onchain.block.as_json() == {
        "chainId": CHAIN_ID,
        "number": 999,
        "hash": world.block_hash(999),
        "tag": "latest",
    }
    call = next(params for method, params in zip(world.asked, world.params, strict=True) if method == "eth_call")
    assert call[1] == hex(999)


@pytest.mark.parametrize("tag", ["latest", "safe", "finalized"])
async def test_the_tag_chooses_the_block(tag: Any) -> None:
    """The request names the configured tag."""
    world = registered_world()
    onchain = await chain_of(Server(world.answer), tag=tag).read_entry(REGISTRY, CONTENT_HASH)
    assert [tag, False] in world.params
    assert onchain.block.tag == tag


async def test_jobs_of_one_moment_share_their_reads() -> None:
    """Fifty simultaneous reads cost three bodies, and each job gets the right entry."""
    world = registered_world()
    server = Server(world.answer)
    chain = chain_of(server)
    hashes = [f"0x{number:064x}" for number in range(50)]
    read = await asyncio.gather(*(chain.read_entry(REGISTRY, content_hash) for content_hash in hashes))
    assert [onchain.entry.content_hash for onchain in read] == hashes
    assert server.posts == [1, 1, 51]


async def test_no_code_is_told_from_no_registry() -> None:
    """An address without code, and a contract other than a registry, are different permanent faults."""
    empty = World(times=[1], entry=b"", code=b"")
    other = World(times=[1], entry=b"", code=b"\x60")
    assert (await fault_of(chain_of(Server(empty.answer)))).code == "registry.no_code"
    assert (await fault_of(chain_of(Server(other.answer)))).code == "registry.unrecognised"


@pytest.mark.parametrize("said", [error("execution reverted", 3), error("invalid opcode: INVALID")])
async def test_a_contract_that_refuses_is_no_registry(said: dict[str, Any]) -> None:
    """A contract that reverts on entries(bytes32) is a permanent fault: no ContentRegistry."""
    world = registered_world()

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        return said if method == "eth_call" else world.answer(method, params)

    fault = await fault_of(chain_of(Server(answer)))
    assert (fault.code, fault.temporary) == ("registry.unrecognised", False)


async def test_a_block_that_reverts_is_the_endpoints_nonsense() -> None:
    """A revert in place of a block, which no contract answers, is for a later attempt or another endpoint."""
    world, healthy = World(times=[1], entry=b""), registered_world()

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        reverts = method == "eth_getBlockByNumber" and "eth_getCode" in world.asked
        return error("execution reverted", 3) if reverts else world.answer(method, params)

    fault = await fault_of(chain_of(Server(answer)))
    assert (fault.code, fault.temporary) == ("rpc.nonsense", True)
    world.asked.clear()
    onchain = await chain_of(Server(answer), Server(healthy.answer)).read_entry(REGISTRY, CONTENT_HASH)
    assert [source.outcome for source in onchain.sources] == ["failed", "used"]


async def test_a_reorganisation_between_the_reads_starts_them_over() -> None:
    """If the block's hash changes during the read, the entry is read again at a stable block."""
    world = registered_world()

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "eth_call" and world.fork == 0:
            world.fork = 1
        return world.answer(method, params)

    onchain = await chain_of(Server(answer)).read_entry(REGISTRY, CONTENT_HASH)
    assert world.asked.count("eth_call") == 2
    assert onchain.block.hash == world.block_hash(999)


async def test_a_chain_that_never_stands_still_is_a_temporary_fault() -> None:
    """A chain that reorganises during every read is a temporary fault."""
    world = registered_world()

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        world.fork += 1
        return world.answer(method, params)

    assert (await fault_of(chain_of(Server(answer)))).code == "rpc.reorg"


async def test_a_lagging_node_behind_the_endpoint_is_waited_for() -> None:
    """A node without the newest block is asked again a moment later."""
    world = registered_world()
    refusals = [error("header not found")]

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "eth_call" and refusals:
            return refusals.pop()
        return world.answer(method, params)

    onchain = await chain_of(Server(answer)).read_entry(REGISTRY, CONTENT_HASH)
    assert onchain.entry.creator == CREATOR


async def test_a_wrong_chain_is_never_read() -> None:
    """An endpoint on a chain other than the configured one is not asked for entries; the right endpoint answers."""
    wrong, right = registered_world(), registered_world()
    wrong.chain_id = 1
    onchain = await chain_of(Server(wrong.answer), Server(right.answer)).read_entry(REGISTRY, CONTENT_HASH)
    assert wrong.asked == ["eth_chainId"]
    assert [(source.outcome, source.url) for source in onchain.sources] == [
        ("failed", "https://rpc0.example"),
        ("used", "https://rpc1.example"),
    ]


async def test_a_single_endpoint_on_the_wrong_chain_is_a_fault() -> None:
    """With no other endpoint, the fault names the chain of the endpoint and the expected chain."""
    world = registered_world()
    world.chain_id = 1
    fault = await fault_of(chain_of(Server(world.answer)))
    assert (fault.code, "chain 1;" in fault.message) == ("rpc.wrong_chain", True)


async def test_a_dead_endpoint_is_replaced_and_then_asked_last() -> None:
    """When the first endpoint is down the next answers, and later jobs do not try the first endpoint first."""
    tried: list[str] = []

    async def dead(request: httpx.Request) -> httpx.Response:
        tried.append(str(request.url))
        raise httpx.ConnectError("no")

    chain = chain_of(dead, Server(registered_world().answer))
    for _ in range(3):
        assert (await chain.read_entry(REGISTRY, CONTENT_HASH)).entry.creator == CREATOR
    assert len(tried) == 1


async def test_a_refused_call_does_not_prolong_the_pause_of_an_endpoint() -> None:
    """After an outage and its pause an endpoint comes first again, although it refused the first call."""
    seconds = 0.0
    refusals = [error("header not found")] * 3
    world = registered_world()

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        return refusals.pop() if method == "eth_call" and refusals else world.answer(method, params)

    async def recovering(request: httpx.Request) -> httpx.Response:
        return await (Server(answer)(request) if seconds else refuses(request))

    with patch.object(endpoints, "CircuitBreaker", partial(CircuitBreaker, clock=lambda: seconds)):
        chain = chain_of(recovering, Server(registered_world().answer))
    first = "https://rpc0.example"
    for now, used in ((0.0, False), (1.5, False), (1.5, True)):
        seconds = now
        onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
        assert (onchain.sources[0].url, onchain.sources[-1].url == first) == (first, used)


async def test_a_hanging_endpoint_is_overtaken() -> None:
    """When the first endpoint hangs, the next is started after the delay and wins, and the report lists both."""
    chain = chain_of(hangs, Server(registered_world().answer), hedge_after_seconds=0.01)
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert [(source.outcome, source.url) for source in onchain.sources] == [
        ("failed", "https://rpc0.example"),
        ("used", "https://rpc1.example"),
    ]
    again = await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert [source.outcome for source in again.sources] == ["used"]


async def test_a_slow_first_answer_still_wins() -> None:
    """A slow first endpoint wins if the second is slower, and the second is not blamed."""
    follower_started = asyncio.Event()
    server = Server(registered_world().answer)

    async def slow(request: httpx.Request) -> httpx.Response:
        await follower_started.wait()
        return await server(request)

    async def follower(request: httpx.Request) -> httpx.Response:
        follower_started.set()
        return await hangs(request)

    onchain = await chain_of(slow, follower, hedge_after_seconds=0.01).read_entry(REGISTRY, CONTENT_HASH)
    assert [(source.outcome, source.url) for source in onchain.sources] == [("used", "https://rpc0.example")]


async def test_all_endpoints_down_is_a_temporary_fault() -> None:
    """When no endpoint answers, the fault is temporary."""
    fault = await fault_of(chain_of(refuses, refuses))
    assert (fault.code, fault.temporary) == ("rpc.unreachable", True)


async def test_retry_after_keeps_us_away() -> None:
    """An endpoint is not asked until its Retry-After has passed, and the fault has the remaining time."""
    posts: list[int] = []

    async def limited(request: httpx.Request) -> httpx.Response:
        posts.append(1)
        return httpx.Response(429, headers={"retry-after": "120"})

    chain = chain_of(limited)
    assert (await fault_of(chain)).code == "rpc.limited"
    fault = await fault_of(chain)
    assert isinstance(fault, RpcFault)
    assert fault.retry_after_seconds is not None
    assert 100 < fault.retry_after_seconds <= 120
    assert len(posts) == 1


async def test_a_429_passes_and_then_all_is_fine() -> None:
    """After a limit without Retry-After the next attempt reads the entry."""
    server = Server(registered_world().answer)
    limits = [httpx.Response(429)]

    async def limited_once(request: httpx.Request) -> httpx.Response:
        return limits.pop() if limits else await server(request)

    chain = chain_of(limited_once)
    assert (await fault_of(chain)).code == "rpc.limited"
    assert (await chain.read_entry(REGISTRY, CONTENT_HASH)).entry.creator == CREATOR


async def test_a_cancelled_read_leaves_nothing_running() -> None:
    """A cancelled read leaves no other read running."""
    chain = chain_of(hangs, hangs, hedge_after_seconds=0.01)
    before = len(asyncio.all_tasks())
    reading = asyncio.create_task(chain.read_entry(REGISTRY, CONTENT_HASH))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    for each in chain.endpoints:
        await each.aclose()
    assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize("number", [0, 1, 500, 998, 999])
async def test_the_registrations_transaction_is_found(number: int) -> None:
    """The registration's transaction is found anywhere on the chain."""
    chain = chain_of(Server(registered_world(number).answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert (await chain.find_registration(onchain)).tx_hash == TX


async def test_two_registrations_in_one_second_are_told_apart() -> None:
    """Among several blocks and registrations in the same second, the right transaction is found."""
    world = World(times=[100, 101, 102, 102, 102, 102, 103, 104])
    world.register(5, TX)
    entry = world.entry
    world.register(2, "0x" + "66" * 32, content_hash="0x" + "ee" * 32)
    world.entry = entry
    chain = chain_of(Server(world.answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert (await chain.find_registration(onchain)).tx_hash == TX
    asked = world.params[world.asked.index("eth_getLogs")][0]
    assert (asked["fromBlock"], asked["toBlock"], asked["topics"][1]) == ("0x2", "0x5", CONTENT_HASH)


async def test_limited_ranges_do_not_hide_the_transaction() -> None:
    """A provider with ranges of one block still leads to the transaction."""
    world = World(times=[100] + [101] * 20 + [102])
    world.register(17, TX)

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "eth_getLogs" and int(params[0]["toBlock"], 16) > int(params[0]["fromBlock"], 16):
            return error("block range is too wide", -32005)
        return world.answer(method, params)

    chain = chain_of(Server(answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert (await chain.find_registration(onchain)).tx_hash == TX


@pytest.mark.parametrize("what", ["eth_getLogs", "eth_getBlockByNumber"])
async def test_an_endpoint_that_refuses_the_search_gives_a_reason(what: str) -> None:
    """If an endpoint refuses the search, the proof goes on without transaction and with a reason."""
    world = registered_world()

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        searched = method == what and (what == "eth_getLogs" or params[0] not in ("latest", hex(999)))
        return error("not available on your plan", -32601) if searched else world.answer(method, params)

    chain = chain_of(Server(answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    registration = await chain.find_registration(onchain)
    assert registration.tx_hash is None
    assert "not found" in registration.reason


async def test_no_event_gives_a_reason() -> None:
    """An entry without its event leaves the transaction out, with a reason."""
    world = registered_world()
    world.logs.clear()
    chain = chain_of(Server(world.answer))
    registration = await chain.find_registration(await chain.read_entry(REGISTRY, CONTENT_HASH))
    assert registration.tx_hash is None
    assert "no registration event" in registration.reason


async def test_the_start_block_bounds_the_search() -> None:
    """No block before the start block is read; an earlier registration is not found, with the reason."""
    world = registered_world(100)
    chain = chain_of(Server(world.answer), start_block=200)
    registration = await chain.find_registration(await chain.read_entry(REGISTRY, CONTENT_HASH))
    assert registration.tx_hash is None
    read = [int(params[0], 16) for params in world.params if params and str(params[0]).startswith("0x")]
    assert min(read) == 200


async def test_nothing_registered_is_not_searched_for() -> None:
    """For an unregistered hash no block is read in search of a transaction."""
    world = World(times=[1, 2], entry=new_layout("0x" + "0" * 40, b"", 0))
    chain = chain_of(Server(world.answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert onchain.entry == UNREGISTERED
    asked = len(world.asked)
    assert (await chain.find_registration(onchain)).tx_hash is None
    assert len(world.asked) == asked


async def test_a_reorganisation_during_the_search_is_for_a_later_attempt() -> None:
    """A transaction found on a chain reorganised during the search is a temporary fault."""
    world = registered_world()

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        if method == "eth_getLogs":
            world.fork = 1
        return world.answer(method, params)

    chain = chain_of(Server(answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    with pytest.raises(RpcFault) as caught:
        await chain.find_registration(onchain)
    assert caught.value.code == "rpc.reorg"


async def test_logs_of_another_shape_are_a_temporary_fault() -> None:
    """A reply of another shape to the search is a temporary fault."""
    world = registered_world()

    def answer(method: str, params: list[Any]) -> dict[str, Any]:
        return {"result": "none"} if method == "eth_getLogs" else world.answer(method, params)

    chain = chain_of(Server(answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    with pytest.raises(RpcFault) as caught:
        await chain.find_registration(onchain)
    assert caught.value.code == "rpc.nonsense"


def young_times(*, behind_seconds: int = 0) -> list[int]:
    """Return the times of ten blocks, two seconds each, the newest just mined."""
    newest = int(time.time()) - behind_seconds
    return [newest - 2 * age for age in range(9, -1, -1)]


async def test_an_endpoint_that_fell_behind_is_not_believed() -> None:
    """A fallback far behind a recent report of the first endpoint is not used."""
    current, stale = World(times=young_times()), World(times=young_times(behind_seconds=600)[:5])
    current.register(8, TX)
    stale.entry = new_layout("0x" + "0" * 40, b"", 0)
    server, down = Server(current.answer), False

    async def first(request: httpx.Request) -> httpx.Response:
        return await (refuses(request) if down else server(request))

    chain = chain_of(first, Server(stale.answer))
    assert (await chain.read_entry(REGISTRY, CONTENT_HASH)).entry.registered
    down = True
    fault = await fault_of(chain)
    assert (fault.code, fault.temporary) == ("rpc.stale", True)
    down = False
    assert (await chain.read_entry(REGISTRY, CONTENT_HASH)).entry.registered


async def test_an_old_block_is_compared_with_what_the_others_say() -> None:
    """If the first endpoint's newest block is old, the other heads are read, and an endpoint ahead is used."""
    current, stale = World(times=young_times()), World(times=young_times(behind_seconds=600)[:5])
    current.register(8, TX)
    stale.entry = new_layout("0x" + "0" * 40, b"", 0)
    chain = chain_of(Server(stale.answer), Server(current.answer), head_grace_seconds=30)
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert onchain.entry.registered
    assert [(source.outcome, source.message.partition(":")[0]) for source in onchain.sources] == [
        ("failed", "rpc.stale"),
        ("used", "entries() at block 9"),
    ]
    await chain.aclose()


async def test_a_registry_that_a_stale_endpoint_does_not_know_is_no_fault() -> None:
    """An endpoint from before the registry's deployment does not fail the job for good."""
    current, stale = World(times=young_times()), World(times=young_times(behind_seconds=600)[:5], code=b"")
    current.register(8, TX)
    chain = chain_of(Server(stale.answer), Server(current.answer), head_grace_seconds=30)
    assert (await chain.read_entry(REGISTRY, CONTENT_HASH)).entry.registered
    await chain.aclose()


async def test_a_chain_that_stands_still_is_read() -> None:
    """A chain with an old newest block on every endpoint is read; the other heads are requested now and then."""
    world = registered_world()
    chain = chain_of(Server(world.answer), Server(world.answer), hangs)
    for _ in range(3):
        assert (await chain.read_entry(REGISTRY, CONTENT_HASH)).entry.registered
    assert world.asked.count("eth_chainId") == 2
    await chain.aclose()
    for each in chain.endpoints:
        await each.aclose()


async def test_a_wallet_is_asked_at_the_entrys_block() -> None:
    """The creator's contract is called at the pinned block, and the report names the endpoint."""
    world = registered_world()
    world.wallet = {"result": "0x1626ba7e" + "00" * 28}
    chain = chain_of(Server(world.answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    answer = await chain.ask_wallet(onchain, bytes(32), b"signature")
    assert answer.accepts is True
    assert [(source.what, source.outcome) for source in answer.sources] == [("wallet", "used")]
    call = world.params[len(world.params) - world.asked[::-1].index("eth_call") - 1]
    assert (call[0]["to"], call[1]) == (CREATOR.lower(), hex(999))


async def test_a_plain_account_is_nobody_to_ask() -> None:
    """A creator without code has not judged the signature."""
    chain = chain_of(Server(registered_world().answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert (await chain.ask_wallet(onchain, bytes(32), b"signature")).accepts is None


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (error("header not found"), "rpc.refused"),
        (error("EVM error: database error: upstream timed out"), "rpc.refused"),
        (error("Too Many Requests", 429), "rpc.limited"),
    ],
)
async def test_an_endpoints_trouble_is_no_word_of_the_wallet(said: dict[str, Any], code: str) -> None:
    """A fault of the endpoint is temporary, and never a refusal by the wallet."""
    world = registered_world()
    world.wallet = said
    chain = chain_of(Server(world.answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    with pytest.raises(RpcFault) as caught:
        await chain.ask_wallet(onchain, bytes(32), b"signature")
    assert caught.value.code == code


async def test_a_wallet_is_not_asked_on_another_fork() -> None:
    """If the entry's block is no longer on the chain, the wallet's answer does not count for the entry."""
    world = registered_world()
    world.wallet = {"result": "0x1626ba7e" + "00" * 28}
    chain = chain_of(Server(world.answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    world.fork = 1
    with pytest.raises(RpcFault) as caught:
        await chain.ask_wallet(onchain, bytes(32), b"signature")
    assert caught.value.code == "rpc.reorg"


async def test_the_search_tells_its_sources() -> None:
    """The report lists the failed endpoints of the search, and the successful endpoint."""
    world = registered_world()
    searching = False

    async def first(request: httpx.Request) -> httpx.Response:
        return await (refuses(request) if searching else server(request))

    server = Server(world.answer)
    chain = chain_of(first, Server(world.answer))
    onchain = await chain.read_entry(REGISTRY, CONTENT_HASH)
    assert onchain.sources[0].url == "https://rpc0.example"
    searching = True
    registration = await chain.find_registration(onchain)
    assert registration.tx_hash == TX
    assert [(source.what, source.outcome, source.url) for source in registration.sources] == [
        ("transaction", "failed", "https://rpc0.example"),
        ("transaction", "used", "https://rpc1.example"),
    ]


@pytest.mark.parametrize(
    "returned",
    [
        b"\x00" * 31,
        b"\x00" * 12 + b"\x11" * 20 + (5).to_bytes(32) + (1 << 255).to_bytes(32),
        new_layout(CREATOR, b"\xff\xfe", 2_200),
        new_layout(CREATOR, b"x" * 64, 2_200)[:-40],
    ],
    ids=["31 bytes", "huge offset", "invalid UTF-8", "URI cut off"],
)
async def test_a_contract_that_answers_otherwise_is_no_registry(returned: bytes) -> None:
    """An answer in neither layout is a permanent fault: no ContentRegistry."""
    world = registered_world()
    world.entry = returned
    fault = await fault_of(chain_of(Server(world.answer)))
    assert (fault.code, fault.temporary) == ("registry.unrecognised", False)
