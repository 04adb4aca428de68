"""One chain behind its endpoints: what a registry holds at one pinned block, from whichever endpoint answers.

A read runs on one endpoint from its first call to its last. The next endpoint starts when that one fails, or has
not answered for ``hedge_after_seconds``; the first whole answer wins. An endpoint that failed is asked last for a
while that grows with its failures, and not at all while its ``Retry-After`` runs.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeVar

from iidq.errors import RegistryFault, RpcFault
from iidq.provenance.digest import sha256_label
from iidq.provenance.jsonrpc import CallRefused, CallReverted
from iidq.provenance.registration import (
    Block,
    NotFound,
    Registration,
    blocks_of_second,
    logs_between,
    pick_registration,
    read_block,
)
from iidq.provenance.registry import CONTENT_REGISTERED_TOPIC, Entry, decode_entry, encode_entries_call
from iidq.provenance.report import SourceTried
from iidq.provenance.rpc import RpcEndpoint, hex_bytes

BlockTag = Literal["latest", "safe", "finalized"]
T = TypeVar("T")

# How often a block is pinned anew when the chain moved under the read, and the pause before.
_PIN_TRIES: Final = 3
_PIN_PAUSE_SECONDS: Final = 0.2
# A search reads about so many times as often, one after another, as an entry's read.
_SEARCH_READS: Final = 5
_FIRST_REST_SECONDS: Final = 1.0
_LONGEST_REST_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class PinnedBlock:
    """The block that every read of one job refers to, and the tag that chose it."""

    chain_id: int
    number: int
    hash: str
    timestamp: int
    tag: BlockTag

    def as_json(self) -> dict[str, Any]:
        """The report's entry."""
        return {"chainId": self.chain_id, "number": self.number, "hash": self.hash, "tag": self.tag}


@dataclass(frozen=True, slots=True)
class OnchainEntry:
    """A registry's entry, the block it was read at, and every endpoint that was tried for it."""

    registry_address: str
    content_hash: str
    entry: Entry
    block: PinnedBlock
    sources: tuple[SourceTried, ...]


@dataclass(slots=True)
class _Health:
    """How an endpoint has done lately; times are the event loop's."""

    failures: int = 0
    rests_until: float = 0.0
    refuses_until: float = 0.0

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


@dataclass(slots=True)
class Chain:
    """The endpoints of one chain, best first.

    ``chain_id`` is what each of them must be on, None to take what the endpoint says; ``tag`` chooses the pinned
    block; ``start_block`` bounds the search for registrations; ``hedge_after_seconds`` is the head start of an
    endpoint before the next one.
    """

    endpoints: Sequence[RpcEndpoint]
    chain_id: int | None = None
    tag: BlockTag = "latest"
    start_block: int = 0
    hedge_after_seconds: float = 1.0
    _health: dict[str, _Health] = field(default_factory=dict)

    async def read_entry(self, registry_address: str, content_hash: str) -> OnchainEntry:
        """Return the registry's entry for a content hash at one block, pinned for this job.

        Raises :class:`RegistryFault` if no ContentRegistry is there, :class:`RpcFault` if no endpoint could tell.
        """
        tried: list[SourceTried] = []

        async def on(endpoint: RpcEndpoint) -> OnchainEntry:
            return await self._entry_on(endpoint, registry_address.lower(), content_hash)

        onchain = await self._first_answer(on, tried, self.hedge_after_seconds)
        return replace(onchain, sources=(*tried, *onchain.sources)) if tried else onchain

    async def find_registration(self, onchain: OnchainEntry) -> Registration:
        """Return the transaction that made this entry, or why it was not found.

        Raises :class:`RpcFault` only where asking again may find it.
        """
        if not onchain.entry.registered:
            return Registration(None, "nothing is registered for this hash")

        async def on(endpoint: RpcEndpoint) -> Registration:
            return await self._registration_on(endpoint, onchain)

        try:
            return await self._first_answer(on, [], self.hedge_after_seconds * _SEARCH_READS)
        except NotFound as miss:
            return Registration(None, f"the registration's transaction was not found: {miss}")
        except CallRefused as fault:
            return Registration(None, f"the registration's transaction was not found: {fault.message}")

    async def _entry_on(self, endpoint: RpcEndpoint, registry_address: str, content_hash: str) -> OnchainEntry:
        chain_id = await self._checked_chain_id(endpoint)
        call = {"to": registry_address, "data": encode_entries_call(content_hash)}
        unsettled = RpcFault("the chain was reorganised during the read", code="rpc.reorg")
        for attempt in range(_PIN_TRIES):
            if attempt:
                await asyncio.sleep(_PIN_PAUSE_SECONDS)
            pinned = read_block(await endpoint.call("eth_getBlockByNumber", self.tag, False))
            at = hex(pinned.number)
            try:
                # The block again, after the entry: only its unchanged hash says that both are of one chain.
                returned, again = await endpoint.calls(("eth_call", call, at), ("eth_getBlockByNumber", at, False))
            except CallReverted:
                raise RegistryFault(
                    "the contract at the registry address is not a ContentRegistry: it refused entries(bytes32)"
                ) from None
            except CallRefused as fault:
                # Behind one URL there may be nodes that have not seen the newest block yet.
                unsettled = fault
                continue
            if again is None or read_block(again).hash != pinned.hash:
                continue
            data = hex_bytes(returned)
            if not data and not hex_bytes(await endpoint.call("eth_getCode", registry_address, at)):
                raise RegistryFault(f"the registry address holds no code on chain {chain_id}", code="registry.no_code")
            source = SourceTried(
                "registry", endpoint.origin, sha256_label(data), "used", f"entries() at block {pinned.number}"
            )
            return OnchainEntry(
                registry_address=registry_address,
                content_hash=content_hash,
                entry=decode_entry(data, content_hash),
                block=PinnedBlock(chain_id, pinned.number, pinned.hash, pinned.timestamp, self.tag),
                sources=(source,),
            )
        raise unsettled

    async def _registration_on(self, endpoint: RpcEndpoint, onchain: OnchainEntry) -> Registration:
        await self._checked_chain_id(endpoint)
        pinned = onchain.block

        async def block_at(number: int) -> Block:
            return read_block(await endpoint.call("eth_getBlockByNumber", hex(number), False))

        async def read_logs(first: int, last: int) -> list[Any]:
            logs = await endpoint.call(
                "eth_getLogs",
                {
                    "address": onchain.registry_address,
                    "topics": [CONTENT_REGISTERED_TOPIC, onchain.content_hash],
                    "fromBlock": hex(first),
                    "toBlock": hex(last),
                },
            )
            if not isinstance(logs, list):
                raise RpcFault("the RPC endpoint answered with something else than logs", code="rpc.nonsense")
            return logs

        high = Block(pinned.number, pinned.hash, pinned.timestamp)
        first, last = await blocks_of_second(onchain.entry.timestamp, self.start_block, high, block_at)
        logs = await logs_between(first, last, read_logs)
        if (await block_at(pinned.number)).hash != pinned.hash:
            raise RpcFault("the chain was reorganised during the read", code="rpc.reorg")
        tx_hash = pick_registration(logs, onchain.registry_address, onchain.content_hash, onchain.entry)
        return Registration(tx_hash, "the registration's event stands in the block of its second")

    async def _checked_chain_id(self, endpoint: RpcEndpoint) -> int:
        chain_id = await endpoint.chain_id()
        if self.chain_id is not None and chain_id != self.chain_id:
            raise RpcFault(
                f"the RPC endpoint is on chain {chain_id}; expected chain {self.chain_id}", code="rpc.wrong_chain"
            )
        return chain_id

    async def _first_answer(
        self, on: Callable[[RpcEndpoint], Coroutine[Any, Any, T]], tried: list[SourceTried], head_start_seconds: float
    ) -> T:
        """Run ``on`` over the endpoints in order of health, each with a head start; return the first answer.

        ``tried`` collects the endpoints that failed. A fault of the chain's own (no registry there, no such
        transaction) is an answer too.
        """
        waiting = self._by_health()
        if not waiting:
            raise self._all_resting()
        running: dict[asyncio.Task[T], RpcEndpoint] = {}  # in the order of their start
        try:
            while True:
                if waiting:
                    endpoint = waiting.pop(0)
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
                        endpoint = running.pop(task)
                        self._failed(endpoint, fault, tried)
                        if not waiting and not running:
                            raise
                    except Exception:
                        self._health_of(running[task]).succeeded()
                        raise
                    else:
                        self._health_of(running[task]).succeeded()
                        self._overtaken(running, task, tried)
                        return answer
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _failed(self, endpoint: RpcEndpoint, fault: RpcFault, tried: list[SourceTried]) -> None:
        tried.append(SourceTried("registry", endpoint.origin, None, "failed", str(fault)))
        if not isinstance(fault, CallRefused):
            self._health_of(endpoint).failed(asyncio.get_running_loop().time(), fault.retry_after_seconds)

    def _overtaken(
        self, running: dict[asyncio.Task[T], RpcEndpoint], winner: asyncio.Task[T], tried: list[SourceTried]
    ) -> None:
        """Hold it against the endpoints that had a head start on the winner and still did not answer."""
        for task, endpoint in running.items():
            if task is winner:
                return
            self._failed(endpoint, RpcFault("another endpoint was faster", code="rpc.slow"), tried)

    def _by_health(self) -> list[RpcEndpoint]:
        now = asyncio.get_running_loop().time()
        willing = [endpoint for endpoint in self.endpoints if self._health_of(endpoint).refuses_until <= now]
        return sorted(willing, key=lambda endpoint: max(self._health_of(endpoint).rests_until, now))

    def _health_of(self, endpoint: RpcEndpoint) -> _Health:
        return self._health.setdefault(endpoint.url, _Health())

    def _all_resting(self) -> RpcFault:
        now = asyncio.get_running_loop().time()
        soonest = min((self._health_of(endpoint).refuses_until - now for endpoint in self.endpoints), default=0.0)
        return RpcFault(
            "every RPC endpoint asked us to wait", code="rpc.limited", retry_after_seconds=max(soonest, 0.0)
        )
