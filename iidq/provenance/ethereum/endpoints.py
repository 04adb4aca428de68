"""The endpoints of one chain: who is asked, who stands in, and whose word does not count.

A read runs on one endpoint from its first call to its last. The next endpoint starts when that one fails, or has
not answered within its head start; the first whole answer wins. An endpoint that failed is asked last for a while
that grows with its failures, and not at all while its ``Retry-After`` runs. One that is on another chain, or far
behind what another has reported lately, is not used for a verdict.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from iidq.errors import IidqError, RpcFault
from iidq.observability import metrics
from iidq.provenance.ethereum.heads import BlockTag, Heads
from iidq.provenance.ethereum.jsonrpc import CallRefused
from iidq.provenance.ethereum.registration import Block, read_block
from iidq.provenance.ethereum.rpc import RpcEndpoint
from iidq.provenance.report import SourceTried

T = TypeVar("T")

_FIRST_REST_SECONDS: Final = 1.0
_LONGEST_REST_SECONDS: Final = 60.0
# How often an endpoint is asked how far it has got although no read needs it, and how long reads wait for that.
_ASK_HEAD_EVERY_SECONDS: Final = 30.0
_HEAD_GRACE_SECONDS: Final = 0.05


@dataclass(slots=True)
class _Health:
    """How an endpoint has done lately; times are the event loop's."""

    failures: int = 0
    rests_until: float = 0.0
    refuses_until: float = 0.0
    head_asked_at: float = float("-inf")

    def succeeded(self) -> None:
        self.failures, self.rests_until = 0, 0.0

    def failed(self, now: float, retry_after_seconds: float | None) -> None:
        if retry_after_seconds is not None:
            self.refuses_until = max(self.refuses_until, now + retry_after_seconds)
        if now < self.rests_until:
            return  # one outage met by many jobs at once is one failure
        rest = min(_FIRST_REST_SECONDS * 2 ** min(self.failures, 10), _LONGEST_REST_SECONDS)
        self.failures += 1
        self.rests_until = now + rest


class Endpoints:
    """The endpoints of one chain, best first.

    ``chain_id`` is what each of them must be on, None to take what the endpoint says; ``tag`` is the block that
    their heads are compared at.
    """

    def __init__(self, endpoints: Sequence[RpcEndpoint], chain_id: int | None, tag: BlockTag) -> None:
        self._endpoints = tuple(endpoints)
        self._chain_id = chain_id
        self._tag: BlockTag = tag
        self._heads = Heads(tag)
        self._health = {endpoint.url: _Health() for endpoint in self._endpoints}
        self._asking: set[asyncio.Task[None]] = set()
        self._asked_at = 0.0

    async def checked_chain_id(self, endpoint: RpcEndpoint) -> int:
        """Return the endpoint's chain id; raise :class:`RpcFault` if it is another than this chain's."""
        chain_id = await endpoint.chain_id()
        if self._chain_id is not None and chain_id != self._chain_id:
            raise RpcFault(
                f"the RPC endpoint is on chain {chain_id}; expected chain {self._chain_id}", code="rpc.wrong_chain"
            )
        return chain_id

    async def head(self, endpoint: RpcEndpoint) -> Block:
        """Return the endpoint's block under the tag; raise :class:`RpcFault`."""
        await self.checked_chain_id(endpoint)
        block = read_block(await endpoint.call("eth_getBlockByNumber", self._tag, False))
        self._heads.report(endpoint.url, block.number, block.timestamp)
        if time.time() - block.timestamp > self._heads.max_lag_seconds:
            self._ask_heads_of_others(endpoint)
        return block

    async def refuse_if_stale(self, endpoint: RpcEndpoint, block: Block) -> None:
        """Raise :class:`RpcFault` if another endpoint is far ahead of this one's ``block``."""
        grace_seconds = self._asked_at + _HEAD_GRACE_SECONDS - asyncio.get_running_loop().time()
        if self._asking and grace_seconds > 0:
            # Nearly always they have answered by now: they were asked before this read's own calls.
            await asyncio.wait(self._asking, timeout=grace_seconds)
        if self._heads.is_behind(endpoint.url, block.number, block.timestamp):
            raise RpcFault("the RPC endpoint is far behind the chain", code="rpc.stale")

    async def first_answer(
        self,
        what: str,
        on: Callable[[RpcEndpoint], Coroutine[Any, Any, T]],
        tried: list[SourceTried],
        *,
        head_start_seconds: float,
    ) -> T:
        """Run ``on`` over the endpoints in order of health, each with a head start; return the first answer.

        ``tried`` collects the endpoints that failed, as sources of ``what``. A fault of the chain's own (no registry
        there) is an answer too. Raises the last endpoint's :class:`RpcFault`, with the earliest ``Retry-After`` of any
        of them, when none answered.
        """
        wishes = self._wishes()
        waiting = self._by_health()
        if not waiting:
            raise RpcFault("every RPC endpoint asked us to wait", code="rpc.limited", retry_after_seconds=min(wishes))
        running: dict[asyncio.Task[T], RpcEndpoint] = {}  # in the order of their start
        try:
            while True:
                if waiting:
                    endpoint = waiting.pop(0)
                    metrics.upstream_asked("rpc")
                    running[asyncio.create_task(on(endpoint))] = endpoint
                done, _ = await asyncio.wait(
                    running,
                    timeout=head_start_seconds if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    try:
                        answer = task.result()
                    except RpcFault as fault:
                        tried.append(self._failed(what, running.pop(task), fault))
                        if fault.retry_after_seconds is not None:
                            wishes.append(fault.retry_after_seconds)
                        if not waiting and not running:
                            wish = min(wishes, default=None)
                            if wish == fault.retry_after_seconds:
                                raise
                            # A new one: the endpoint's other askers share its own.
                            raise RpcFault(fault.message, code=fault.code, retry_after_seconds=wish) from None
                    except Exception:
                        self._health[running[task].url].succeeded()
                        raise
                    else:
                        self._health[running[task].url].succeeded()
                        tried += self._overtaken(what, running, task)
                        return answer
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def aclose(self) -> None:
        """Give up the questions that no read waits for."""
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _failed(self, what: str, endpoint: RpcEndpoint, fault: RpcFault) -> SourceTried:
        metrics.upstream_failed("rpc", fault.code)
        if not isinstance(fault, CallRefused):
            self._health[endpoint.url].failed(asyncio.get_running_loop().time(), fault.retry_after_seconds)
        return SourceTried(what, endpoint.origin, None, "failed", str(fault))

    def _overtaken(
        self, what: str, running: dict[asyncio.Task[T], RpcEndpoint], winner: asyncio.Task[T]
    ) -> list[SourceTried]:
        """Hold it against the endpoints that had a head start on the winner and still did not answer."""
        slow = RpcFault("another endpoint was faster", code="rpc.slow")
        ahead = list(running)[: list(running).index(winner)]
        return [self._failed(what, running[task], slow) for task in ahead]

    def _by_health(self) -> list[RpcEndpoint]:
        now = asyncio.get_running_loop().time()
        willing = [endpoint for endpoint in self._endpoints if self._health[endpoint.url].refuses_until <= now]
        return sorted(willing, key=lambda endpoint: max(self._health[endpoint.url].rests_until, now))

    def _wishes(self) -> list[float]:
        """Return how long each endpoint whose ``Retry-After`` still runs wants to be left alone, in seconds."""
        now = asyncio.get_running_loop().time()
        return [health.refuses_until - now for health in self._health.values() if health.refuses_until > now]

    def _ask_heads_of_others(self, asked: RpcEndpoint) -> None:
        """Find out beside the read whether an old-looking block is old for the others too."""
        now = asyncio.get_running_loop().time()
        for endpoint in self._endpoints:
            health = self._health[endpoint.url]
            rests = max(health.rests_until, health.refuses_until) > now
            if endpoint is asked or rests or now - health.head_asked_at < _ASK_HEAD_EVERY_SECONDS:
                continue
            health.head_asked_at = self._asked_at = now
            task = asyncio.create_task(self._learn_head(endpoint))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _learn_head(self, endpoint: RpcEndpoint) -> None:
        try:
            await self.checked_chain_id(endpoint)
            block = read_block(await endpoint.call("eth_getBlockByNumber", self._tag, False))
        except IidqError:
            return  # it says nothing about the others; its own reads will tell
        self._heads.report(endpoint.url, block.number, block.timestamp)
