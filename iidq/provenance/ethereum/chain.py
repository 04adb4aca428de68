"""One chain behind its endpoints: what a registry and a wallet hold at one pinned block, from whichever answers.

These reads are not web3's, for two reasons. web3 calls any address that a contract names (EIP-3668), unless it is told
not to. It takes about four times as much CPU for an entry, and asks each call alone.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from iidq.errors import RegistryFault, RpcFault
from iidq.provenance.digest import sha256_label
from iidq.provenance.ethereum.endpoints import Endpoints
from iidq.provenance.ethereum.heads import BlockTag
from iidq.provenance.ethereum.jsonrpc import AnswerTooLong, CallRefused, CallReverted
from iidq.provenance.ethereum.registration import (
    Block,
    NotFound,
    Registration,
    blocks_of_second,
    logs_between,
    pick_registration,
    read_block,
)
from iidq.provenance.ethereum.registry import CONTENT_REGISTERED_TOPIC, Entry, decode_entry, encode_entries_call
from iidq.provenance.ethereum.rpc import RpcEndpoint, hex_bytes
from iidq.provenance.ethereum.wallet import accepts_signature, encode_is_valid_signature_call
from iidq.provenance.report import SourceTried

# How often a block is pinned anew when the chain moved under the read, and the pause before.
_PIN_TRIES: Final = 3
_PIN_PAUSE_SECONDS: Final = 0.2
# The longest manifest URI takes 5 million to read. More would let a contract keep an endpoint busy; nodes cap calls at
# 50 million, and some chains take the transaction's own data out of it.
_CALL_GAS: Final = hex(16_000_000)
# A search reads about so many times as often, one after another, as an entry's read.
_SEARCH_READS: Final = 5


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


@dataclass(frozen=True, slots=True)
class WalletAnswer:
    """What the creator's account said of a signature; ``accepts`` is None if no contract is there to be asked."""

    accepts: bool | None
    sources: tuple[SourceTried, ...]


class Chain:
    """One chain, read through its endpoints, best first.

    ``chain_id`` is what each of them must be on, None to take what the endpoint says; ``tag`` chooses the pinned
    block; ``start_block`` bounds the search for registrations; ``hedge_after_seconds`` is the head start of an
    endpoint before the next one.
    """

    def __init__(
        self,
        endpoints: Sequence[RpcEndpoint],
        *,
        chain_id: int | None = None,
        tag: BlockTag = "latest",
        start_block: int = 0,
        hedge_after_seconds: float = 1.0,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self.chain_id = chain_id
        self.tag: BlockTag = tag
        self._start_block = start_block
        self._hedge_after_seconds = hedge_after_seconds
        self._endpoints = Endpoints(self.endpoints, chain_id, tag)

    async def read_entry(self, registry_address: str, content_hash: str) -> OnchainEntry:
        """Return the registry's entry for a content hash at one block, pinned for this job.

        Raises :class:`RegistryFault` if no ContentRegistry is there, :class:`RpcFault` if no endpoint could tell.
        """
        tried: list[SourceTried] = []

        async def on(endpoint: RpcEndpoint) -> OnchainEntry:
            return await self._entry_on(endpoint, registry_address.lower(), content_hash)

        onchain = await self._endpoints.first_answer(
            "registry", on, tried, head_start_seconds=self._hedge_after_seconds
        )
        return replace(onchain, sources=(*tried, *onchain.sources)) if tried else onchain

    async def ask_wallet(self, onchain: OnchainEntry, digest: bytes, signature: bytes) -> WalletAnswer:
        """Return what the entry's creator, if it is a contract, says of a signature over ``digest`` (EIP-1271).

        It is asked at the entry's own block. Raises :class:`RpcFault` if no endpoint could tell.
        """
        tried: list[SourceTried] = []

        async def on(endpoint: RpcEndpoint) -> WalletAnswer:
            return await self._wallet_on(endpoint, onchain, digest, signature)

        answer = await self._endpoints.first_answer("wallet", on, tried, head_start_seconds=self._hedge_after_seconds)
        return replace(answer, sources=(*tried, *answer.sources))

    async def find_registration(self, onchain: OnchainEntry) -> Registration:
        """Return the transaction that made this entry, or why it was not found.

        Raises :class:`RpcFault` only where asking again may find it.
        """
        if not onchain.entry.registered:
            return Registration(None, "nothing is registered for this hash")
        tried: list[SourceTried] = []

        async def on(endpoint: RpcEndpoint) -> Registration:
            return await self._registration_on(endpoint, onchain)

        try:
            registration = await self._endpoints.first_answer(
                "transaction", on, tried, head_start_seconds=self._hedge_after_seconds * _SEARCH_READS
            )
        except CallRefused as fault:
            if fault.retry_after_seconds is not None:
                raise  # another endpoint may find it, later
            return Registration(None, _not_found(fault.message), tuple(tried))
        return replace(registration, sources=(*tried, *registration.sources))

    async def aclose(self) -> None:
        """Give up what no read waits for."""
        await self._endpoints.aclose()

    async def _entry_on(self, endpoint: RpcEndpoint, registry_address: str, content_hash: str) -> OnchainEntry:
        chain_id = await self._endpoints.checked_chain_id(endpoint)
        call_data = encode_entries_call(content_hash)
        unsettled: RpcFault = _Moved()
        for attempt in range(_PIN_TRIES):
            if attempt:
                await asyncio.sleep(_PIN_PAUSE_SECONDS)
            pinned = await self._endpoints.head(endpoint)
            try:
                returned, code = await self._call_at(endpoint, pinned, registry_address, call_data)
            except (CallRefused, _Moved) as fault:
                # Behind one URL there may be nodes that have not seen the newest block yet.
                unsettled = fault
                continue
            await self._endpoints.refuse_if_stale(endpoint, pinned)
            if code is not None and not code:
                raise RegistryFault(f"the registry address holds no code on chain {chain_id}", code="registry.no_code")
            if isinstance(returned, CallReverted):
                why = returned.message if isinstance(returned, AnswerTooLong) else "it refused entries(bytes32)"
                raise RegistryFault(f"the contract at the registry address is not a ContentRegistry: {why}")
            source = SourceTried(
                "registry", endpoint.origin, sha256_label(returned), "used", f"entries() at block {pinned.number}"
            )
            return OnchainEntry(
                registry_address=registry_address,
                content_hash=content_hash,
                entry=decode_entry(returned, content_hash),
                block=PinnedBlock(chain_id, pinned.number, pinned.hash, pinned.timestamp, self.tag),
                sources=(source,),
            )
        raise unsettled

    async def _wallet_on(
        self, endpoint: RpcEndpoint, onchain: OnchainEntry, digest: bytes, signature: bytes
    ) -> WalletAnswer:
        await self._endpoints.checked_chain_id(endpoint)
        pinned = onchain.block
        block = Block(pinned.number, pinned.hash, pinned.timestamp)
        returned, code = await self._call_at(
            endpoint, block, onchain.entry.creator.lower(), encode_is_valid_signature_call(digest, signature)
        )
        # A contract can also return nothing or refuse; only its code tells it from a plain account.
        asked = code is None or bool(code)
        told = f"isValidSignature() at block {pinned.number}" if asked else f"no code at block {pinned.number}"
        answer = None if isinstance(returned, CallReverted) else returned
        digest_of_answer = sha256_label(answer) if asked and answer is not None else None
        source = SourceTried("wallet", endpoint.origin, digest_of_answer, "used", told)
        return WalletAnswer(accepts_signature(answer) if asked else None, (source,))

    async def _call_at(
        self, endpoint: RpcEndpoint, block: Block, address: str, call_data: str
    ) -> tuple[bytes | CallReverted, bytes | None]:
        """Return what a contract returned at a block, or its refusal, and its code if it returned nothing.

        Raises :class:`_Moved` unless the block was still the chain's after the call.
        """
        at = hex(block.number)
        # The block again, after the call: only its unchanged hash says that both are of one chain.
        returned, again = await endpoint.outcomes(
            ("eth_call", {"to": address, "data": call_data, "gas": _CALL_GAS}, at),
            ("eth_getBlockByNumber", at, False),
            contract=address,
        )
        data = returned if isinstance(returned, CallReverted) else hex_bytes(returned)
        code = None
        if isinstance(data, CallReverted) or not data:
            code, again = await endpoint.calls(
                ("eth_getCode", address, at), ("eth_getBlockByNumber", at, False), contract=address
            )
            code = hex_bytes(code)
        if again is None or read_block(again).hash != block.hash:
            raise _Moved
        return data, code

    async def _registration_on(self, endpoint: RpcEndpoint, onchain: OnchainEntry) -> Registration:
        await self._endpoints.checked_chain_id(endpoint)
        pinned = onchain.block

        async def block_at(number: int) -> Block:
            return read_block(await endpoint.call("eth_getBlockByNumber", hex(number), False))

        async def read_logs(first: int, last: int) -> list[Any]:
            criteria = {
                "address": onchain.registry_address,
                "topics": [CONTENT_REGISTERED_TOPIC, onchain.content_hash],
                "fromBlock": hex(first),
                "toBlock": hex(last),
            }
            try:
                logs = await endpoint.call("eth_getLogs", criteria, contract=onchain.registry_address)
            except AnswerTooLong:
                raise NotFound("the registry's events for it are too long to be read") from None
            if not isinstance(logs, list):
                raise RpcFault("the RPC endpoint answered with something else than logs", code="rpc.nonsense")
            return logs

        high = Block(pinned.number, pinned.hash, pinned.timestamp)
        tx_hash, told = None, "the registration's event stands in the block of its second"
        try:
            first, last = await blocks_of_second(onchain.entry.timestamp, self._start_block, high, block_at)
            logs = await logs_between(first, last, read_logs)
            tx_hash = pick_registration(logs, onchain.registry_address, onchain.content_hash, onchain.entry)
        except NotFound as miss:
            told = _not_found(str(miss))
        if (await block_at(pinned.number)).hash != pinned.hash:
            raise _Moved
        source = SourceTried("transaction", endpoint.origin, None, "used", "blocks by time, then logs")
        return Registration(tx_hash, told, (source,))


class _Moved(RpcFault):
    """The pinned block is not, or no longer, the chain's."""

    code = "rpc.reorg"

    def __init__(self) -> None:
        super().__init__("the chain was reorganised during the read")


def _not_found(why: str) -> str:
    return f"the registration's transaction was not found: {why}"
