"""One chain: read a registry's entry, a wallet's answer and a registration, from the best endpoint that answers.

The reads do not use web3, which takes about four times the CPU for an entry and sends each call alone. web3 also calls
any address that a contract names (EIP-3668), unless configured otherwise.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from iidq.errors import RegistryFault, RpcFault
from iidq.provenance.digest import sha256_label
from iidq.provenance.ethereum.endpoints import HEAD_GRACE_SECONDS, BlockTag, Endpoints
from iidq.provenance.ethereum.jsonrpc import (
    AnswerTooLong,
    BlockHeader,
    CallRefused,
    CallReverted,
    hex_bytes,
    read_block,
)
from iidq.provenance.ethereum.registration import (
    NotFound,
    Registration,
    blocks_of_second,
    logs_between,
    pick_registration,
)
from iidq.provenance.ethereum.registry import (
    CONTENT_REGISTERED_TOPIC,
    Entry,
    accepts_signature,
    decode_entry,
    encode_entries_call,
    encode_is_valid_signature_call,
)
from iidq.provenance.ethereum.rpc import RpcEndpoint
from iidq.provenance.report import SourceTried

# Attempts to pin a block on a chain that moves during the read, and the pause between them.
_PIN_TRIES: Final = 3
_PIN_PAUSE_SECONDS: Final = 0.2
# The longest manifest URI takes 5 million to read. More would let a contract keep an endpoint busy. Nodes cap calls at
# 50 million, and some chains charge the transaction's own data to it.
_CALL_GAS: Final = hex(16_000_000)
# A search makes about five times the reads of an entry, one after another.
_SEARCH_READS: Final = 5


@dataclass(frozen=True, slots=True)
class PinnedBlock:
    """The block of every read of one job."""

    chain_id: int
    """The chain of the block."""
    number: int
    """Height."""
    hash: str
    """``0x`` and 64 lower-case hex digits; compared after each read, to notice a reorganisation."""
    timestamp: int
    """Unix seconds."""
    tag: BlockTag
    """The tag that chose the block."""

    @property
    def header(self) -> BlockHeader:
        """Return the block's header."""
        return BlockHeader(self.number, self.hash, self.timestamp)

    def as_json(self) -> dict[str, Any]:
        """Return the report's entry."""
        return {"chainId": self.chain_id, "number": self.number, "hash": self.hash, "tag": self.tag}


@dataclass(frozen=True, slots=True)
class OnchainEntry:
    """A registry's entry with its block."""

    registry_address: str
    """The registry, in lower case."""
    content_hash: str
    """The content hash of the call."""
    entry: Entry
    """The entry; unregistered if the registry has none."""
    block: PinnedBlock
    """The block of the read."""
    sources: tuple[SourceTried, ...]
    """Every endpoint that was tried; the last one was used."""


@dataclass(frozen=True, slots=True)
class WalletAnswer:
    """The answer of the creator's account about a signature (EIP-1271)."""

    accepts: bool | None
    """Whether the contract accepts the signature; None for an account without code."""
    sources: tuple[SourceTried, ...]
    """Every endpoint that was tried; the last one was used."""


class Chain:
    """One chain, read through its endpoints, best first.

    ``chain_id`` is the expected chain, None to accept any. ``tag`` chooses the pinned block. ``start_block`` bounds the
    search for registrations. ``hedge_after_seconds`` is the head start of an endpoint before the next one is started.
    ``head_grace_seconds`` bounds the wait for the heads of other endpoints, after an old-looking block.
    """

    def __init__(
        self,
        endpoints: Sequence[RpcEndpoint],
        *,
        chain_id: int | None = None,
        tag: BlockTag = "latest",
        start_block: int = 0,
        hedge_after_seconds: float = 1.0,
        head_grace_seconds: float = HEAD_GRACE_SECONDS,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self.chain_id = chain_id
        self.tag: BlockTag = tag
        self._start_block = start_block
        self._hedge_after_seconds = hedge_after_seconds
        self._endpoints = Endpoints(self.endpoints, chain_id, tag, head_grace_seconds=head_grace_seconds)

    async def read_entry(self, registry_address: str, content_hash: str) -> OnchainEntry:
        """Return the registry's entry for a content hash at one block, pinned for this job.

        Raises :class:`RegistryFault` if no ContentRegistry is there, :class:`RpcFault` if no endpoint answers.
        """
        tried: list[SourceTried] = []
        onchain = await self._endpoints.first_answer(
            "registry",
            lambda endpoint: self._entry_on(endpoint, registry_address.lower(), content_hash),
            tried,
            head_start_seconds=self._hedge_after_seconds,
        )
        return replace(onchain, sources=(*tried, *onchain.sources)) if tried else onchain

    async def ask_wallet(self, onchain: OnchainEntry, digest: bytes, signature: bytes) -> WalletAnswer:
        """Return whether the entry's creator, if a contract, accepts a signature over ``digest`` (EIP-1271).

        Reads at the entry's block. Raises :class:`RpcFault` if no endpoint answers.
        """
        tried: list[SourceTried] = []
        answer = await self._endpoints.first_answer(
            "wallet",
            lambda endpoint: self._wallet_on(endpoint, onchain, digest, signature),
            tried,
            head_start_seconds=self._hedge_after_seconds,
        )
        return replace(answer, sources=(*tried, *answer.sources))

    async def find_registration(self, onchain: OnchainEntry) -> Registration:
        """Return the entry's transaction, or the reason why none was found.

        Raises :class:`RpcFault` only if a later search may find the transaction.
        """
        if not onchain.entry.registered:
            return Registration(None, "nothing is registered for this hash")
        tried: list[SourceTried] = []
        try:
            registration = await self._endpoints.first_answer(
                "transaction",
                lambda endpoint: self._registration_on(endpoint, onchain),
                tried,
                head_start_seconds=self._hedge_after_seconds * _SEARCH_READS,
            )
        except CallRefused as fault:
            if fault.retry_after_seconds is not None:
                raise  # another endpoint may find the transaction later
            return Registration(None, _not_found(fault.message), tuple(tried))
        return replace(registration, sources=(*tried, *registration.sources))

    async def aclose(self) -> None:
        """Cancel the background requests."""
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
                # Some nodes behind the endpoint may not have the newest block yet.
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
        returned, code = await self._call_at(
            endpoint, pinned.header, onchain.entry.creator.lower(), encode_is_valid_signature_call(digest, signature)
        )
        # A contract can also return nothing or refuse; only the code distinguishes it from a plain account.
        is_contract = code is None or bool(code)
        call = "isValidSignature()" if is_contract else "no code"
        answer = None if isinstance(returned, CallReverted) else returned
        digest_of_answer = sha256_label(answer) if is_contract and answer is not None else None
        source = SourceTried("wallet", endpoint.origin, digest_of_answer, "used", f"{call} at block {pinned.number}")
        return WalletAnswer(accepts_signature(answer) if is_contract else None, (source,))

    async def _call_at(
        self, endpoint: RpcEndpoint, block: BlockHeader, address: str, call_data: str
    ) -> tuple[bytes | CallReverted, bytes | None]:
        """Return a contract's answer at a block, or the refusal, and the code if the answer is empty.

        Raises :class:`_Moved` if the chain dropped the block meanwhile.
        """
        at = hex(block.number)
        # The block again, after the call: an unchanged hash proves that both are of one chain.
        returned, again = await endpoint.calls(
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
            if isinstance(code, CallReverted):
                raise code
            code = hex_bytes(code)
        if again is None or read_block(again).hash != block.hash:
            raise _Moved
        return data, code

    async def _registration_on(self, endpoint: RpcEndpoint, onchain: OnchainEntry) -> Registration:
        await self._endpoints.checked_chain_id(endpoint)
        pinned = onchain.block

        async def block_at(number: int) -> BlockHeader:
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
                raise RpcFault("the RPC endpoint sent something other than logs", code="rpc.nonsense")
            return logs

        tx_hash, reason = None, "the registration's event is in the block of its second"
        try:
            first, last = await blocks_of_second(onchain.entry.timestamp, self._start_block, pinned.header, block_at)
            logs = await logs_between(first, last, read_logs)
            tx_hash = pick_registration(logs, onchain.registry_address, onchain.content_hash, onchain.entry)
        except NotFound as miss:
            reason = _not_found(str(miss))
        if (await block_at(pinned.number)).hash != pinned.hash:
            raise _Moved
        source = SourceTried("transaction", endpoint.origin, None, "used", "blocks by time, then logs")
        return Registration(tx_hash, reason, (source,))


class _Moved(RpcFault):
    """The pinned block is not, or no longer, part of the chain."""

    code = "rpc.reorg"

    def __init__(self) -> None:
        super().__init__("the chain was reorganised during the read")


def _not_found(why: str) -> str:
    return f"the registration's transaction was not found: {why}"
