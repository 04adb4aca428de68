"""One Ethereum JSON-RPC endpoint: calls that are ready at the same moment go out as one batch.

The CPU of a call is nearly all HTTP, so calls share it: those of one turn of the event loop, and those that came
while ``posts_at_once`` bodies were already on their way. Equal calls of one body are asked once. A call never joins
a body that has left already: its answer could be older than the question.

A contract may be anybody's, and its answers slow or endless. Calls that a contract answers share a body only with
others about the same contract, and such a body has a bound of its own. An answer that is too long is asked for again in
halves, until the call that made it so is alone.
"""

import asyncio
import json
import re
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from iidq.errors import IidqError, RpcFault
from iidq.guarded_http.fetch import retry_after_seconds
from iidq.provenance.ethereum.decoding import decode_beside
from iidq.provenance.ethereum.jsonrpc import AnswerTooLong, BatchRefused, CallReverted, Request, decode, encode

MAX_CONTRACT_ANSWER_BYTES: Final = 1 << 20
"""One body about a contract: a hundred usual entries, or one with the longest manifest URI, and the blocks of both."""

_SINGLE_POSTS_AT_ONCE: Final = 16
# Bodies about contracts, of all contracts together: half of the client's connections.
_CONTRACT_POSTS_AT_ONCE: Final = 32
_ANSWERED_BY_CONTRACTS: Final = {"eth_call", "eth_getCode", "eth_getLogs"}
# A longer answer is decoded beside the event loop. This one takes 2 ms.
_LONG_ANSWER_BYTES: Final = 256 << 10
_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")
_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
# Statuses that mean "try later" or "who are you", whatever the body's size; any other 4xx may be about the batch.
_NOT_ABOUT_THE_BATCH: Final = {401, 402, 404, 408, 429}


def open_http(
    *,
    connect_seconds: float = 5,
    read_seconds: float = 10,
    tls: bool = True,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """Return a client for operators' endpoints: kept-alive connections, no redirects, no proxy variables."""
    return httpx.AsyncClient(
        trust_env=False,
        verify=tls,
        transport=transport,
        follow_redirects=False,
        timeout=httpx.Timeout(read_seconds, connect=connect_seconds, pool=connect_seconds),
        limits=httpx.Limits(max_connections=64, max_keepalive_connections=32, keepalive_expiry=30),
    )


class _TooLong(Exception):
    """The answer to a body is longer than its bound; never leaves the client."""


class _Waiting:
    """A call that has not left yet, and how many ask for it."""

    __slots__ = ("askers", "future", "request")

    def __init__(self, request: Request, future: asyncio.Future[Any]) -> None:
        self.request = request
        self.future = future
        self.askers = 0


class RpcEndpoint:
    """Calls to one URL.

    ``deadline_seconds`` bounds each call from asking to answer; ``batch_limit`` the calls of one body, and falls by
    itself where an endpoint takes fewer; ``posts_at_once`` the bodies that are on their way, per contract and for all
    other calls; ``max_answer_bytes`` one answer's body. ``contract`` is the address whose answer a call asks for.
    """

    def __init__(
        self,
        url: str,
        http: httpx.AsyncClient,
        *,
        deadline_seconds: float = 10,
        batch_limit: int = 100,
        posts_at_once: int = 4,
        max_answer_bytes: int = 8 << 20,
    ) -> None:
        self.url = url
        self.batch_limit = batch_limit
        self._http = http
        self._deadline_seconds = deadline_seconds
        self._posts_at_once = posts_at_once
        self._max_answer_bytes = max_answer_bytes
        self._ids = count(1)
        self._waiting: dict[str | None, dict[Request, _Waiting]] = {}  # by contract
        self._posts: dict[asyncio.Task[None], str | None] = {}
        self._departure: asyncio.Handle | None = None
        self._chain_id: int | None = None
        self._closed = False

    @property
    def origin(self) -> str:
        """Scheme, host and port: all of the URL that may be shown, since keys stand in the paths."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")

    async def call(self, method: str, *params: Any, contract: str | None = None) -> Any:
        """Return the call's result; raise :class:`RpcFault`, or :class:`CallReverted` if a contract refused."""
        return (await self.calls((method, *params), contract=contract))[0]

    async def calls(self, *calls: tuple[Any, ...], contract: str | None = None) -> list[Any]:
        """Return the results of ``(method, *params)`` calls that leave together; raise the first one's fault."""
        outcomes = await self.outcomes(*calls, contract=contract)
        for outcome in outcomes:
            if isinstance(outcome, CallReverted):
                raise outcome
        return outcomes

    async def outcomes(self, *calls: tuple[Any, ...], contract: str | None = None) -> list[Any]:
        """Do as :meth:`calls`, but return a contract's refusal in the place of its call's result."""
        asked = [
            self._ask(Request(method, json.dumps(params, separators=(",", ":"))), contract) for method, *params in calls
        ]
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return [await _outcome(waiting.future) for waiting in asked]
        except TimeoutError:
            raise RpcFault("the RPC endpoint did not answer in time", code="rpc.timeout") from None
        finally:
            for waiting in asked:
                waiting.askers -= 1

    async def post(self, body: bytes) -> bytes:
        """Post a JSON-RPC body as it is and return the answer's, within the bounds; raise :class:`RpcFault`.

        Errors in it are the endpoint's own words, which are for the operator alone.
        """
        try:
            status, headers, answer = await self._send(body, self._max_answer_bytes)
        except _TooLong:
            raise RpcFault("the RPC endpoint's answer is too long", code="rpc.too_long") from None
        if status != 200:
            self._raise_for_status(status, headers, answer, batched=False)
        return answer

    async def chain_id(self) -> int:
        """Return the endpoint's chain id, asked once and then pinned."""
        if self._chain_id is None:
            self._chain_id = quantity(await self.call("eth_chainId"))
        return self._chain_id

    async def aclose(self) -> None:
        """Give up every call that is on its way or waiting, and take no more."""
        self._closed = True
        if self._departure is not None:
            self._departure.cancel()
        posts = list(self._posts)
        for post in posts:
            post.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
        self._settle([call for calls in self._waiting.values() for call in calls.values()], _given_up())
        self._waiting.clear()

    def _ask(self, request: Request, contract: str | None) -> _Waiting:
        if self._closed:
            raise _given_up()
        waiting = self._waiting.get(contract, {}).get(request)
        if waiting is None:
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(_seen)
            waiting = self._waiting.setdefault(contract, {})[request] = _Waiting(request, future)
            self._plan_departure()
        waiting.askers += 1
        return waiting

    def _plan_departure(self) -> None:
        if not self._closed and self._departure is None and any(map(self._may_leave, self._waiting)):
            self._departure = asyncio.get_running_loop().call_soon(self._depart)

    def _may_leave(self, contract: str | None) -> bool:
        """Whether another body about ``contract`` may be on its way."""
        posts = list(self._posts.values())
        if contract is not None and len(posts) - posts.count(None) >= _CONTRACT_POSTS_AT_ONCE:
            return False
        return posts.count(contract) < self._posts_at_once

    def _depart(self) -> None:
        self._departure = None
        for contract, calls in list(self._waiting.items()):
            while calls and self._may_leave(contract):
                leaving: list[_Waiting] = []
                while calls and len(leaving) < self.batch_limit:
                    waiting = calls.pop(next(iter(calls)))
                    if waiting.askers > 0:
                        leaving.append(waiting)
                    else:
                        waiting.future.cancel()
                if leaving:
                    post = asyncio.get_running_loop().create_task(self._post(leaving))
                    self._posts[post] = contract
                    post.add_done_callback(self._arrived)
            if not calls:
                del self._waiting[contract]

    def _arrived(self, post: asyncio.Task[None]) -> None:
        del self._posts[post]
        self._plan_departure()

    async def _post(self, leaving: list[_Waiting]) -> None:
        try:
            await self._exchange(leaving)
        except BatchRefused:
            await self._post_fewer(leaving)
        except _TooLong:
            await self._post_halves(leaving)
        except IidqError as fault:
            self._settle(leaving, fault)
        finally:
            # Only a bug or a closing client leaves anything here; its askers must not wait for their deadline.
            self._settle(leaving, _given_up())

    async def _post_fewer(self, leaving: list[_Waiting]) -> None:
        """Tell a refused batch from an endpoint that is ill: ask one call alone, and only then lower the limit."""
        try:
            await self._exchange(leaving[:1])
        except _TooLong:
            # Its size may be why the batch was refused.
            await self._post_halves(leaving)
            return
        except IidqError as fault:
            self._settle(leaving, fault)
            return
        self.batch_limit = size = min(self.batch_limit, max(1, len(leaving) // 2))
        if size == 1:
            self._posts_at_once = max(self._posts_at_once, _SINGLE_POSTS_AT_ONCE)
        rest = leaving[1:]
        wave = size * _SINGLE_POSTS_AT_ONCE
        for start in range(0, len(rest), wave):
            posts = [rest[at : at + size] for at in range(start, min(start + wave, len(rest)), size)]
            await asyncio.gather(*(self._post(post) for post in posts))

    async def _post_halves(self, leaving: list[_Waiting]) -> None:
        """Ask again, in smaller bodies, what together is too long; a call that is too long alone gets the fault."""
        if len(leaving) > 1:
            middle = len(leaving) // 2
            await self._post(leaving[:middle])
            await self._post(leaving[middle:])
        elif _is_answered_by_contract(leaving[0]):
            message = f"the contract's answer is longer than {MAX_CONTRACT_ANSWER_BYTES:,} bytes"
            self._settle(leaving, AnswerTooLong(message))
        else:
            self._settle(leaving, RpcFault("the RPC endpoint's answer is too long", code="rpc.too_long"))

    async def _exchange(self, leaving: list[_Waiting]) -> None:
        by_id = {next(self._ids): waiting for waiting in leaving}
        body = encode({id_: waiting.request for id_, waiting in by_id.items()})
        max_bytes = self._max_answer_bytes
        if any(map(_is_answered_by_contract, leaving)):
            max_bytes = min(max_bytes, MAX_CONTRACT_ANSWER_BYTES)
        status, headers, answer = await self._send(body, max_bytes)
        if status != 200:
            self._raise_for_status(status, headers, answer, batched=len(leaving) > 1)
        if len(answer) > _LONG_ANSWER_BYTES:
            outcomes = await decode_beside(decode, answer, list(by_id))
        else:
            outcomes = decode(answer, list(by_id))
        for id_, outcome in outcomes.items():
            future = by_id[id_].future
            if future.done():
                continue
            if isinstance(outcome, Exception):
                if isinstance(outcome, RpcFault) and outcome.retry_after_seconds is None:
                    outcome.retry_after_seconds = retry_after_seconds(headers)
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    async def _send(self, body: bytes, max_bytes: int) -> tuple[int, httpx.Headers, bytes]:
        try:
            async with (
                asyncio.timeout(self._deadline_seconds),
                self._http.stream("POST", self.url, content=body, headers=_HEADERS) as response,
            ):
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise RpcFault("the RPC endpoint packed its answer although asked not to", code="rpc.nonsense")
                chunks, received = [], 0
                async for chunk in response.aiter_bytes():
                    received += len(chunk)
                    if received > max_bytes:
                        if response.status_code == 200:
                            raise _TooLong
                        break  # an error's page: its status says enough
                    chunks.append(chunk)
                return response.status_code, response.headers, b"".join(chunks)
        except (TimeoutError, httpx.TimeoutException):
            raise RpcFault("the RPC endpoint did not answer in time", code="rpc.timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise RpcFault("the RPC endpoint could not be reached", code="rpc.unreachable") from None

    def _raise_for_status(self, status: int, headers: httpx.Headers, answer: bytes, *, batched: bool) -> None:
        """Raise unless the body is JSON-RPC all the same: some endpoints send errors of calls with HTTP 400."""
        retry_after = retry_after_seconds(headers)
        if status == 429:
            raise RpcFault(
                "the RPC endpoint limits our calls (HTTP 429)",
                code="rpc.limited",
                retry_after_seconds=retry_after,
            )
        if batched and 400 <= status < 500 and status not in _NOT_ABOUT_THE_BATCH:
            raise BatchRefused
        if not (400 <= status < 500 and answer.lstrip()[:1] in (b"{", b"[")):
            raise RpcFault(
                f"the RPC endpoint answered with HTTP {status}",
                code="rpc.http_status",
                retry_after_seconds=retry_after,
            )

    def _settle(self, calls: list[_Waiting], fault: IidqError) -> None:
        for waiting in calls:
            if not waiting.future.done():
                waiting.future.set_exception(fault)


def quantity(value: Any) -> int:
    """Read a JSON-RPC quantity (``0x1a``); raise :class:`RpcFault` for anything else."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise RpcFault("the RPC endpoint answered with something else than a quantity", code="rpc.nonsense")


def hex_bytes(value: Any) -> bytes:
    """Read JSON-RPC data (``0x`` and hex pairs); raise :class:`RpcFault` for anything else."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            data = b""
        # Blanks between the pairs would be skipped.
        if 2 + 2 * len(data) == len(value):
            return data
    raise RpcFault("the RPC endpoint answered with something else than hex data", code="rpc.nonsense")


def _is_answered_by_contract(waiting: _Waiting) -> bool:
    return waiting.request.method in _ANSWERED_BY_CONTRACTS


def _given_up() -> RpcFault:
    return RpcFault("the RPC client was closed", code="rpc.closed")


async def _outcome(future: asyncio.Future[Any]) -> Any:
    try:
        return await asyncio.shield(future)
    except CallReverted as refusal:
        return refusal


def _seen(future: asyncio.Future[Any]) -> None:
    """Mark a fault as looked at, for when every asker has gone."""
    if not future.cancelled():
        future.exception()
