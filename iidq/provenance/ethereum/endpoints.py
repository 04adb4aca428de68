"""The endpoints of one chain: order, health, and protection against a wrong or stale chain.

A read runs on one endpoint from the first call to the last. The next endpoint starts after a failure, or at the end of
the head start; the first whole answer wins. After a failure an endpoint comes last for a pause, which grows with each
failure. While a ``Retry-After`` runs, the endpoint is left out. An endpoint on another chain, or far behind another
endpoint, is not used for a verdict.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from iidq.concurrency.circuit_breaker import CircuitBreaker
from iidq.concurrency.hedged import Race, race
from iidq.errors import IidqError, RpcFault
from iidq.observability import metrics
from iidq.provenance.ethereum.jsonrpc import BlockHeader, CallRefused, read_block
from iidq.provenance.ethereum.rpc import RpcEndpoint
from iidq.provenance.report import SourceTried

T = TypeVar("T")
BlockTag = Literal["latest", "safe", "finalized"]

MAX_LAG_BLOCKS: Final = 3
# ``safe`` and ``finalized`` advance by whole epochs, 6.4 minutes on Ethereum.
MAX_LAG_SECONDS: Final[dict[BlockTag, float]] = {"latest": 60, "safe": 900, "finalized": 900}
REMEMBERED_SECONDS: Final = 600.0
# How often an endpoint's head is requested without a read.
_HEAD_INTERVAL_SECONDS: Final = 30.0
HEAD_GRACE_SECONDS: Final = 0.05


class Endpoints:
    """The endpoints of one chain, best first.

    ``chain_id`` is the expected chain, None to accept any. ``tag`` is the block tag at which heads are compared.
    ``head_grace_seconds`` bounds a read's wait for the heads of the other endpoints.
    """

    def __init__(
        self,
        endpoints: Sequence[RpcEndpoint],
        chain_id: int | None,
        tag: BlockTag,
        *,
        head_grace_seconds: float = HEAD_GRACE_SECONDS,
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._chain_id = chain_id
        self._tag: BlockTag = tag
        self._head_grace_seconds = head_grace_seconds
        self._heads = Heads(tag)
        self._health = {
            endpoint.url: CircuitBreaker(threshold=1, first_pause_seconds=1, longest_pause_seconds=60)
            for endpoint in self._endpoints
        }
        self._head_requested_at: dict[str, float] = {}
        self._head_requests: set[asyncio.Task[None]] = set()
        self._last_head_request_at = 0.0

    async def checked_chain_id(self, endpoint: RpcEndpoint) -> int:
        """Return the endpoint's chain id; raise :class:`RpcFault` for a chain other than the expected."""
        chain_id = await endpoint.chain_id()
        if self._chain_id is not None and chain_id != self._chain_id:
            raise RpcFault(
                f"the RPC endpoint is on chain {chain_id}; expected chain {self._chain_id}", code="rpc.wrong_chain"
            )
        return chain_id

    async def head(self, endpoint: RpcEndpoint) -> BlockHeader:
        """Return the endpoint's block under the tag; raise :class:`RpcFault`."""
        block = await self._read_head(endpoint)
        if time.time() - block.timestamp > self._heads.max_lag_seconds:
            self._request_heads_of_others(endpoint)
        return block

    async def refuse_if_stale(self, endpoint: RpcEndpoint, block: BlockHeader) -> None:
        """Raise :class:`RpcFault` if another endpoint is far ahead of this endpoint's ``block``."""
        grace_seconds = self._last_head_request_at + self._head_grace_seconds - asyncio.get_running_loop().time()
        if self._head_requests and grace_seconds > 0:
            # The requests went out before this read's own calls: nearly always the answers are here.
            await asyncio.wait(self._head_requests, timeout=grace_seconds)
        if self._heads.is_behind(endpoint.url, block.number, block.timestamp):
            raise RpcFault("the RPC endpoint is far behind another endpoint", code="rpc.stale")

    async def first_answer(
        self,
        kind: str,
        on: Callable[[RpcEndpoint], Coroutine[Any, Any, T]],
        tried: list[SourceTried],
        *,
        head_start_seconds: float,
    ) -> T:
        """Run ``on`` over the endpoints in order of health, each with a head start; return the first answer.

        Appends the failed endpoints to ``tried``, as sources of this ``kind``. A permanent fault of the chain (no
        registry there) is an answer too, and is raised. If no endpoint answered, raises the last :class:`RpcFault`,
        with the earliest ``Retry-After`` of any endpoint.
        """
        delays = [left for health in self._health.values() if (left := health.retry_after_seconds)]
        willing = self._willing()
        if not willing:
            raise RpcFault(
                "every RPC endpoint refuses calls for now (Retry-After)",
                code="rpc.limited",
                retry_after_seconds=min(delays),
            )
        course = await race(
            willing,
            lambda endpoint: self._begin(endpoint, on),
            head_start_seconds=head_start_seconds,
            losing=(RpcFault,),
        )
        tried += [_failed_source(kind, attempt.source, attempt.fault) for attempt in course.failed if attempt.fault]
        if course.winner is None:
            raise _last_fault(course, delays)
        slow = RpcFault("another endpoint was faster", code="rpc.slow")
        for attempt in course.overtaken:
            # An endpoint that lost despite a head start counts as failed.
            self._record_failure(attempt.source, slow)
            tried.append(_failed_source(kind, attempt.source, slow))
        return course.winner.task.result()

    async def aclose(self) -> None:
        """Cancel the requests for heads."""
        requests = list(self._head_requests)
        for task in requests:
            task.cancel()
        await asyncio.gather(*requests, return_exceptions=True)

    def _willing(self) -> list[RpcEndpoint]:
        """Return the endpoints without a running ``Retry-After``, the healthy ones first."""
        willing = [endpoint for endpoint in self._endpoints if not self._health[endpoint.url].retry_after_seconds]
        return sorted(willing, key=lambda endpoint: self._health[endpoint.url].open_seconds)

    def _begin(
        self, endpoint: RpcEndpoint, on: Callable[[RpcEndpoint], Coroutine[Any, Any, T]]
    ) -> Coroutine[Any, Any, T]:
        self._health[endpoint.url].record_request()
        metrics.upstream_asked("rpc")
        return self._watched(endpoint, on)

    async def _watched(self, endpoint: RpcEndpoint, on: Callable[[RpcEndpoint], Coroutine[Any, Any, T]]) -> T:
        """Run ``on`` and record the outcome in the endpoint's health; a permanent fault counts as a success."""
        try:
            answer = await on(endpoint)
        except RpcFault as fault:
            self._record_failure(endpoint, fault)
            raise
        except Exception:
            self._health[endpoint.url].record_success()
            raise
        self._health[endpoint.url].record_success()
        return answer

    def _record_failure(self, endpoint: RpcEndpoint, fault: RpcFault) -> None:
        metrics.upstream_failed("rpc", fault.code)
        health = self._health[endpoint.url]
        if isinstance(fault, CallRefused):
            health.end_probe()
        else:
            health.record_failure(retry_after_seconds=fault.retry_after_seconds)

    def _request_heads_of_others(self, behind: RpcEndpoint) -> None:
        """Find out, in the background, whether an old-looking block is old for the other endpoints too."""
        now = asyncio.get_running_loop().time()
        for endpoint in self._endpoints:
            health = self._health[endpoint.url]
            recent = now - self._head_requested_at.get(endpoint.url, float("-inf")) < _HEAD_INTERVAL_SECONDS
            if endpoint is behind or health.is_open or health.retry_after_seconds or recent:
                continue
            self._head_requested_at[endpoint.url] = self._last_head_request_at = now
            task = asyncio.create_task(self._try_read_head(endpoint))
            self._head_requests.add(task)
            task.add_done_callback(self._head_requests.discard)

    async def _try_read_head(self, endpoint: RpcEndpoint) -> None:
        try:
            await self._read_head(endpoint)
        except IidqError:
            return  # proves nothing about the other endpoints

    async def _read_head(self, endpoint: RpcEndpoint) -> BlockHeader:
        await self.checked_chain_id(endpoint)
        block = read_block(await endpoint.call("eth_getBlockByNumber", self._tag, False))
        self._heads.report(endpoint.url, block.number, block.timestamp)
        return block


def _failed_source(kind: str, endpoint: RpcEndpoint, fault: IidqError) -> SourceTried:
    return SourceTried(kind, endpoint.origin, None, "failed", str(fault))


def _last_fault(course: Race[RpcEndpoint, T], delays: list[float]) -> RpcFault:
    """Return the last fault, with the earliest of the ``delays`` and of the faults' own."""
    faults = [attempt.fault for attempt in course.failed if isinstance(attempt.fault, RpcFault)]
    delays = delays + [fault.retry_after_seconds for fault in faults if fault.retry_after_seconds is not None]
    earliest, last = min(delays, default=None), faults[-1]
    if earliest == last.retry_after_seconds:
        return last
    # A copy: other reads share the endpoint's own fault.
    return RpcFault(last.message, code=last.code, retry_after_seconds=earliest)


@dataclass(frozen=True, slots=True)
class _Head:
    number: int
    timestamp: int
    reported_at: float


class Heads:
    """The newest block that each endpoint has reported under one tag.

    An endpoint is far behind if it lags another by more blocks and by more seconds of block time than a healthy
    endpoint does. Blocks alone would depend on the chain's pace. Seconds alone would blame every endpoint of a chain
    that mines only on demand.
    """

    def __init__(self, tag: BlockTag, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_lag_seconds = MAX_LAG_SECONDS[tag]
        self._clock = clock
        self._heads: dict[str, _Head] = {}

    def report(self, url: str, number: int, timestamp: int) -> None:
        """Record the newest block of the endpoint at ``url``; ``timestamp`` is the block's, in Unix seconds."""
        self._heads[url] = _Head(number, timestamp, self._clock())

    def is_behind(self, url: str, number: int, timestamp: int) -> bool:
        """Return whether another endpoint has lately reported a far newer block than this one."""
        oldest = self._clock() - REMEMBERED_SECONDS
        return any(
            head.number - number > MAX_LAG_BLOCKS and head.timestamp - timestamp > self.max_lag_seconds
            for other, head in self._heads.items()
            if other != url and head.reported_at >= oldest
        )
