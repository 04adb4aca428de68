"""One endpoint: batches, limits and every kind of faulty answer."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from iidq.errors import RpcFault
from iidq.provenance.ethereum.jsonrpc import CallRefused, CallReverted, hex_bytes, quantity
from tests.provenance.rpc_world import CHAIN_ID, Handler, Server, World, endpoint, error, is_batch


def numbered(method: str, params: list[Any]) -> dict[str, Any]:
    return {"result": params[0]}


async def reply(response: httpx.Response) -> httpx.Response:
    return response


def always(make: Any) -> Handler:
    return lambda request: reply(make())


async def faults_of(handler: Handler, **options: Any) -> RpcFault:
    rpc = endpoint(handler, **options)
    with pytest.raises(RpcFault) as caught:
        await rpc.call("eth_chainId")
    await rpc.aclose()
    assert caught.value.temporary
    assert "secret" not in str(caught.value)
    return caught.value


async def test_calls_of_one_moment_share_a_body() -> None:
    """Simultaneous calls go out as a single batch, and each gets the right answer."""
    server = Server(numbered)
    rpc = endpoint(server)
    assert await asyncio.gather(*(rpc.call("echo", number) for number in range(50))) == list(range(50))
    assert server.posts == [50]


async def test_batches_are_bounded() -> None:
    """No body carries more calls than the limit."""
    server = Server(numbered)
    rpc = endpoint(server, batch_limit=20)
    assert await asyncio.gather(*(rpc.call("echo", number) for number in range(50))) == list(range(50))
    assert server.posts == [20, 20, 10]


async def test_equal_calls_of_one_body_are_asked_once() -> None:
    """Simultaneous requests for the same block cost a single call."""
    world = World(times=[1, 2])
    rpc = endpoint(Server(world.answer))
    answers = await asyncio.gather(*(rpc.call("eth_getBlockByNumber", "latest", False) for _ in range(9)))
    assert world.asked == ["eth_getBlockByNumber"]
    assert answers == [world.block("latest")] * 9


async def test_a_call_never_joins_a_body_that_has_left() -> None:
    """A call never shares a request in flight, so later changes are seen."""
    left, may_answer = asyncio.Event(), asyncio.Event()
    server = Server(numbered)

    async def slow(request: httpx.Request) -> httpx.Response:
        left.set()
        await may_answer.wait()
        return await server(request)

    rpc = endpoint(slow)
    first = asyncio.create_task(rpc.call("echo", 1))
    await left.wait()
    second = asyncio.create_task(rpc.call("echo", 1))
    await asyncio.sleep(0)
    may_answer.set()
    await asyncio.gather(first, second)
    assert server.posts == [1, 1]


async def test_calls_gather_while_enough_bodies_are_on_their_way() -> None:
    """With every place for bodies taken, later calls wait together and leave as a single batch."""
    left, may_answer = asyncio.Event(), asyncio.Event()
    server = Server(numbered)

    async def slow(request: httpx.Request) -> httpx.Response:
        left.set()
        await may_answer.wait()
        return await server(request)

    rpc = endpoint(slow, posts_at_once=1)
    calls = [asyncio.create_task(rpc.call("echo", 0))]
    await left.wait()
    for number in range(1, 6):
        calls.append(asyncio.create_task(rpc.call("echo", number)))
        await asyncio.sleep(0)
    may_answer.set()
    assert await asyncio.gather(*calls) == list(range(6))
    assert server.posts == [1, 5]


async def refuse_with_400(request: httpx.Request) -> httpx.Response:
    return httpx.Response(400, text="no batches")


async def refuse_with_413(request: httpx.Request) -> httpx.Response:
    return httpx.Response(413, html="<html>too large</html>")


async def refuse_with_one_error(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": None, **error("Invalid request", -32600)})


async def refuse_each_call(request: httpx.Request) -> httpx.Response:
    calls = json.loads(request.content)
    return httpx.Response(200, json=[{"id": call["id"], **error("batch is not supported")} for call in calls])


@pytest.mark.parametrize("refuse", [refuse_with_400, refuse_with_413, refuse_with_one_error, refuse_each_call])
async def test_an_endpoint_without_batches_gets_single_calls(refuse: Handler) -> None:
    """If batches are refused, every call is still answered, and later calls go out singly at once."""
    server = Server(numbered)

    async def handler(request: httpx.Request) -> httpx.Response:
        return await (refuse if is_batch(request) else server)(request)

    rpc = endpoint(handler)
    assert await asyncio.gather(*(rpc.call("echo", number) for number in range(40))) == list(range(40))
    assert rpc.batch_limit == 1
    assert set(server.posts) == {1}
    assert await asyncio.gather(*(rpc.call("echo", number) for number in (1, 2))) == [1, 2]


async def test_an_endpoint_with_small_batches_gets_small_ones() -> None:
    """A limit on the batch's size is found, and batches within the limit stay in use."""
    server = Server(numbered)

    async def at_most_ten(request: httpx.Request) -> httpx.Response:
        if is_batch(request) and len(json.loads(request.content)) > 10:
            return await refuse_with_413(request)
        return await server(request)

    rpc = endpoint(at_most_ten)
    assert await asyncio.gather(*(rpc.call("echo", number) for number in range(100))) == list(range(100))
    assert 5 <= rpc.batch_limit <= 10
    assert max(server.posts) > 1


async def test_an_ill_endpoint_is_not_taken_for_one_without_batches() -> None:
    """If a single call fails too, batches stay in use, and the calls get the fault."""
    rpc = endpoint(always(lambda: httpx.Response(403, text="go away")))
    outcomes = await asyncio.gather(*(rpc.call("echo", n) for n in range(5)), return_exceptions=True)
    assert all(isinstance(outcome, RpcFault) for outcome in outcomes)
    assert rpc.batch_limit == 100


async def test_a_partial_batch_fails_only_what_it_leaves_out() -> None:
    """Answered calls keep the answers if others of the batch have none."""
    server = Server(numbered)

    async def loses_the_last(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=(await server(request)).json()[:-1])

    rpc = endpoint(loses_the_last)
    *kept, lost = await asyncio.gather(*(rpc.call("echo", n) for n in (1, 2, 3)), return_exceptions=True)
    assert kept == [1, 2]
    assert isinstance(lost, RpcFault)
    assert lost.code == "rpc.nonsense"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: httpx.Response(200, html="<html>welcome</html>"), "rpc.not_json"),
        (lambda: httpx.Response(200, json={"jsonrpc": "2.0", "id": 999, "result": "0x1"}), "rpc.nonsense"),
        (lambda: httpx.Response(200, json={"jsonrpc": "2.0", "id": "1", "result": "0x1"}), "rpc.nonsense"),
        (lambda: httpx.Response(200, json=[]), "rpc.nonsense"),
        (lambda: httpx.Response(200, content=b" " * 2_000), "rpc.too_long"),
        (lambda: httpx.Response(302, headers={"location": "http://169.254.169.254/"}), "rpc.http_status"),
        (lambda: httpx.Response(500, text="oops"), "rpc.http_status"),
        (lambda: httpx.Response(401, text="secret"), "rpc.http_status"),
        (lambda: httpx.Response(404, html="<html>"), "rpc.http_status"),
        (
            lambda: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"x")),
            "rpc.nonsense",
        ),
    ],
)
async def test_nonsense_is_a_temporary_fault(make: Any, code: str) -> None:
    """HTML, a wrong id, an endless or packed body, a redirect or an error status is a temporary fault."""
    assert (await faults_of(always(make), max_answer_bytes=1_000)).code == code


async def test_a_lost_connection_is_a_temporary_fault() -> None:
    """An unreachable endpoint is a temporary fault."""

    async def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("secret address refused")

    assert (await faults_of(lost)).code == "rpc.unreachable"


async def test_a_hanging_endpoint_is_given_up_at_the_deadline() -> None:
    """No call waits longer than its deadline."""

    async def hangs(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await faults_of(hangs, deadline_seconds=0.05)).code == "rpc.timeout"


async def test_retry_after_is_passed_on() -> None:
    """A 429 passes on the endpoint's Retry-After; the next call may succeed."""
    answers = [httpx.Response(429, headers={"retry-after": "7"}), None]
    server = Server(World(times=[1]).answer)

    async def limited_once(request: httpx.Request) -> httpx.Response:
        return answers.pop(0) or await server(request)

    rpc = endpoint(limited_once)
    with pytest.raises(RpcFault) as caught:
        await rpc.chain_id()
    assert (caught.value.code, caught.value.retry_after_seconds) == ("rpc.limited", 7.0)
    assert await rpc.chain_id() == CHAIN_ID


async def test_errors_of_calls_with_http_400_are_read() -> None:
    """The error of a call is read from a body with HTTP 400."""

    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"id": json.loads(request.content)["id"], **error("execution reverted", 3)})

    with pytest.raises(CallReverted):
        await endpoint(handler).call("eth_call")


async def test_the_chain_id_is_asked_once() -> None:
    """The chain id is asked once per endpoint and then pinned."""
    world = World(times=[1])
    rpc = endpoint(Server(world.answer))
    assert [await rpc.chain_id() for _ in range(3)] == [CHAIN_ID] * 3
    assert world.asked == ["eth_chainId"]


async def test_a_cancelled_call_does_not_take_others_with_it() -> None:
    """A cancelled call leaves an equal, shared call of another job running."""
    rpc = endpoint(Server(numbered))
    first, second = (asyncio.create_task(rpc.call("echo", 1)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1


async def test_closing_ends_every_call() -> None:
    """Closing the client fails every waiting call."""
    left = asyncio.Event()

    async def hangs(request: httpx.Request) -> httpx.Response:
        left.set()
        await asyncio.Event().wait()
        raise AssertionError

    rpc = endpoint(hangs, posts_at_once=1)
    calls = [asyncio.create_task(rpc.call("echo", 0))]
    await left.wait()
    calls.append(asyncio.create_task(rpc.call("echo", 1)))
    await asyncio.sleep(0)
    await rpc.aclose()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [outcome.code for outcome in outcomes if isinstance(outcome, RpcFault)] == ["rpc.closed"] * 2


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://user:pass@rpc.example/v3/KEY?key=K", "https://rpc.example"),
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("http://[::1]:8545/", "http://[::1]:8545"),
    ],
)
async def test_only_the_origin_is_shown(url: str, origin: str) -> None:
    """Keys in a URL's user, path or query never show."""
    assert endpoint(Server(numbered), url).origin == origin


@pytest.mark.parametrize("value", [None, 5, "", "5", "0x", "0x_1", "0x1 ", "-0x1", "0xg", "0x" + "1" * 65, ["0x1"]])
def test_only_quantities_are_quantities(value: Any) -> None:
    """A quantity other than 0x and hex digits is a fault of the endpoint."""
    with pytest.raises(RpcFault, match="quantity"):
        quantity(value)


@pytest.mark.parametrize("value", [None, 5, "", "0x1", "0x 1 ", "0xgg", "11"])
def test_only_hex_data_is_data(value: Any) -> None:
    """Data other than 0x and hex pairs is a fault of the endpoint."""
    with pytest.raises(RpcFault, match="hex data"):
        hex_bytes(value)


async def test_a_refused_call_is_the_endpoints_fault() -> None:
    """An error other than a revert or a limit is a temporary refusal."""
    with pytest.raises(CallRefused):
        await endpoint(Server(lambda method, params: error("header not found"))).call("eth_call")
