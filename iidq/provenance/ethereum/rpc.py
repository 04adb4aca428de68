"""One Ethereum JSON-RPC endpoint, with automatic batches.

HTTP is nearly all of a call's CPU. Calls of one turn of the event loop share a body, and so do calls that queued while
``posts_at_once`` bodies were in flight. Equal calls of one body are sent once. A call never joins a body in flight: the
answer could be older than the call.

Contracts may be hostile: slow, or with endless answers. Calls that a contract answers share a body only with calls
about the same contract, with a separate limit on such bodies. After an answer that is too long, the calls are sent
again in halves, until the call with the long answer is alone.
"""

import asyncio
import json
from itertools import count
from typing import Any, Final

import httpx

from iidq.concurrency.decoding import decode_in_thread
from iidq.errors import IidqError, RpcFault
from iidq.provenance.ethereum.jsonrpc import (
    AnswerTooLong,
    BatchRefused,
    CallResult,
    CallReverted,
    Request,
    decode,
    encode,
    quantity,
)
from iidq.provenance.ethereum.rpc_http import BodyTooLong, post_json, shown_origin

MAX_CONTRACT_ANSWER_BYTES: Final = 1 << 20
"""One body about a contract: a hundred usual entries, or one with the longest manifest URI, and the blocks of both."""

_SINGLE_POSTS_AT_ONCE: Final = 16
# Bodies about contracts, of all contracts together: half of the client's connections.
_CONTRACT_POSTS_AT_ONCE: Final = 32
_ANSWERED_BY_CONTRACTS: Final = {"eth_call", "eth_getCode", "eth_getLogs"}
# Longer answers are decoded off the event loop. An answer of this size takes 2 ms.
_LONG_ANSWER_BYTES: Final = 256 << 10


class _Call:
    """A call without an answer, and the number of waiters."""

    __slots__ = ("future", "request", "waiters")

    def __init__(self, request: Request, future: asyncio.Future[Any]) -> None:
        self.request = request
        self.future = future
        self.waiters = 0


class RpcEndpoint:
    """Calls to one URL.

    ``deadline_seconds`` bounds each call from the request to the answer. ``batch_limit`` bounds the calls of one body,
    and falls where the endpoint accepts fewer. ``posts_at_once`` bounds the bodies in flight, per contract and for all
    other calls together. ``max_answer_bytes`` bounds one answer. ``contract`` is the address of the contract that
    answers.
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
        self.origin = shown_origin(url)
        self.batch_limit = batch_limit
        self._http = http
        self._deadline_seconds = deadline_seconds
        self._posts_at_once = posts_at_once
        self._max_answer_bytes = max_answer_bytes
        self._ids = count(1)
        self._queued: dict[str | None, dict[Request, _Call]] = {}  # by contract
        self._posts: dict[asyncio.Task[None], str | None] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._chain_id: int | None = None
        self._closed = False

    async def call(self, method: str, *params: Any, contract: str | None = None) -> Any:
        """Return the call's result; raise :class:`RpcFault`, or :class:`CallReverted` if a contract refused."""
        (result,) = await self.calls((method, *params), contract=contract)
        if isinstance(result, CallReverted):
            raise result
        return result

    async def calls(self, *calls: tuple[Any, ...], contract: str | None = None) -> list[CallResult]:
        """Send ``(method, *params)`` calls together; return their results, with a refusal as :class:`CallReverted`.

        Raises the first call's :class:`RpcFault`.
        """
        queued = [
            self._queue(Request(method, json.dumps(params, separators=(",", ":"))), contract)
            for method, *params in calls
        ]
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return [await _result_or_refusal(call.future) for call in queued]
        except TimeoutError:
            raise RpcFault("the RPC endpoint did not answer in time", code="rpc.timeout") from None
        finally:
            for call in queued:
                call.waiters -= 1

    async def chain_id(self) -> int:
        """Return the endpoint's chain id, read once."""
        if self._chain_id is None:
            self._chain_id = quantity(await self.call("eth_chainId"))
        return self._chain_id

    async def aclose(self) -> None:
        """Fail every call in flight or in the queue, and accept no more."""
        self._closed = True
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        posts = list(self._posts)
        for post in posts:
            post.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
        _fail([call for calls in self._queued.values() for call in calls.values()], _closed_fault())
        self._queued.clear()

    def _queue(self, request: Request, contract: str | None) -> _Call:
        if self._closed:
            raise _closed_fault()
        call = self._queued.get(contract, {}).get(request)
        if call is None:
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(_retrieve_fault)
            call = self._queued.setdefault(contract, {})[request] = _Call(request, future)
            self._schedule_flush()
        call.waiters += 1
        return call

    def _schedule_flush(self) -> None:
        if not self._closed and self._flush_handle is None and any(map(self._may_post, self._queued)):
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def _may_post(self, contract: str | None) -> bool:
        """Return whether the limits allow another body about ``contract``."""
        posts = list(self._posts.values())
        if contract is not None and len(posts) - posts.count(None) >= _CONTRACT_POSTS_AT_ONCE:
            return False
        return posts.count(contract) < self._posts_at_once

    def _flush(self) -> None:
        """Send the queued calls in batches, as far as the limits allow."""
        self._flush_handle = None
        for contract, calls in list(self._queued.items()):
            while calls and self._may_post(contract):
                if batch := self._next_batch(calls):
                    post = asyncio.get_running_loop().create_task(self._post(batch))
                    self._posts[post] = contract
                    post.add_done_callback(self._posted)
            if not calls:
                del self._queued[contract]

    def _next_batch(self, calls: dict[Request, _Call]) -> list[_Call]:
        """Take calls from the queue, up to the limit; drop calls without waiters."""
        batch: list[_Call] = []
        while calls and len(batch) < self.batch_limit:
            call = calls.pop(next(iter(calls)))
            if call.waiters > 0:
                batch.append(call)
            else:
                call.future.cancel()
        return batch

    def _posted(self, post: asyncio.Task[None]) -> None:
        del self._posts[post]
        self._schedule_flush()

    async def _post(self, batch: list[_Call]) -> None:
        try:
            await self._exchange(batch)
        except BatchRefused:
            await self._post_fewer(batch)
        except BodyTooLong:
            await self._post_halves(batch)
        except IidqError as fault:
            _fail(batch, fault)
        finally:
            # After a bug or a closed client: without a result the waiters would wait for their deadline.
            _fail(batch, _closed_fault())

    async def _post_fewer(self, batch: list[_Call]) -> None:
        """Send one call alone; lower the limit only after a success, since the endpoint may just be failing."""
        try:
            await self._exchange(batch[:1])
        except BodyTooLong:
            # The size may be the reason for the refusal.
            await self._post_halves(batch)
            return
        except IidqError as fault:
            _fail(batch, fault)
            return
        self.batch_limit = size = min(self.batch_limit, max(1, len(batch) // 2))
        if size == 1:
            self._posts_at_once = max(self._posts_at_once, _SINGLE_POSTS_AT_ONCE)
        rest = batch[1:]
        wave = size * _SINGLE_POSTS_AT_ONCE
        for start in range(0, len(rest), wave):
            posts = [rest[at : at + size] for at in range(start, min(start + wave, len(rest)), size)]
            await asyncio.gather(*(self._post(post) for post in posts))

    async def _post_halves(self, batch: list[_Call]) -> None:
        """Send the batch in halves; a single call with too long an answer gets the fault."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._post(batch[:middle])
            await self._post(batch[middle:])
        elif _is_answered_by_contract(batch[0]):
            message = f"the contract's answer is longer than {MAX_CONTRACT_ANSWER_BYTES:,} bytes"
            _fail(batch, AnswerTooLong(message))
        else:
            _fail(batch, RpcFault("the RPC endpoint's answer is too long", code="rpc.too_long"))

    async def _exchange(self, batch: list[_Call]) -> None:
        by_id = {next(self._ids): call for call in batch}
        max_bytes = self._max_answer_bytes
        if any(map(_is_answered_by_contract, batch)):
            max_bytes = min(max_bytes, MAX_CONTRACT_ANSWER_BYTES)
        answer = await post_json(
            self._http,
            self.url,
            encode({id_: call.request for id_, call in by_id.items()}),
            deadline_seconds=self._deadline_seconds,
            max_bytes=max_bytes,
            batched=len(batch) > 1,
        )
        if len(answer.body) > _LONG_ANSWER_BYTES:
            results = await decode_in_thread(decode, answer.body, list(by_id))
        else:
            results = decode(answer.body, list(by_id))
        for id_, result in results.items():
            _settle(by_id[id_].future, result, answer.retry_after_seconds)


def _settle(future: asyncio.Future[Any], result: CallResult, retry_after_seconds: float | None) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        if isinstance(result, RpcFault) and result.retry_after_seconds is None:
            result.retry_after_seconds = retry_after_seconds
        future.set_exception(result)
    else:
        future.set_result(result)


def _fail(calls: list[_Call], fault: IidqError) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(fault)


def _is_answered_by_contract(call: _Call) -> bool:
    return call.request.method in _ANSWERED_BY_CONTRACTS


def _closed_fault() -> RpcFault:
    return RpcFault("the RPC client was closed", code="rpc.closed")


async def _result_or_refusal(future: asyncio.Future[Any]) -> CallResult:
    try:
        return await asyncio.shield(future)
    except CallReverted as refusal:
        return refusal


def _retrieve_fault(future: asyncio.Future[Any]) -> None:
    """Mark a fault as retrieved, for a call without waiters."""
    if not future.cancelled():
        future.exception()
