"""Transactions of one's own: priced by the node (EIP-1559), signed here, sent, and waited for.

The key signs and goes nowhere: the endpoint gets the signed bytes. Whoever sends sees the endpoint's own words, for
they say what to mend ("insufficient funds …"); URLs in them are redacted.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx

from iidq.errors import IidqError
from iidq.json_depth import is_too_deep
from iidq.provenance.address import checksum_address, keccak256
from iidq.redaction import redact_url

_REQUEST_TIMEOUT_SECONDS: Final = 30
_MAX_REPLY_BYTES: Final = 8 << 20
_MAX_WORDS: Final = 300
_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 2.0
# Nodes that are asked twice for the same: the first answer was lost on the way, and the transaction was not.
_SENT_BEFORE: Final = ("already known", "alreadyknown", "already imported", "known transaction", "nonce too low")


class TransactionFault(IidqError):
    """The endpoint refused, the transaction reverted, or it was not mined in time; the message says which."""

    code = "transaction.failed"


class NoReply(TransactionFault):
    """The endpoint gave no usable answer; what was sent may have arrived all the same."""

    code = "transaction.no_reply"


class NotMinedYet(TransactionFault):
    """The transaction was sent, and no block has it so far."""

    code = "transaction.pending"


class ChainClient:
    """JSON-RPC calls to one endpoint, one at a time, with its own words where it refuses."""

    def __init__(self, url: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url
        self._http = httpx.AsyncClient(
            timeout=_REQUEST_TIMEOUT_SECONDS,
            # Reading the certificate authorities takes 50 ms, and plain HTTP needs none.
            verify=not url.startswith("http://"),
            trust_env=False,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(self, method: str, *params: Any) -> Any:
        """Return the result; raise :class:`NoReply`, or :class:`TransactionFault` with the endpoint's words."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            reply = await self._http.post(self._url, json=request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoReply(f"{method}: no usable reply from the endpoint ({type(error).__name__})") from error
        body = _json(reply.content)
        if isinstance(body, dict) and isinstance(body.get("error"), dict):
            words = " ".join(str(body["error"].get("message", "refused")).split())[:_MAX_WORDS]
            raise TransactionFault(f"{method}: {redact_url(words)}")
        if not reply.is_success or not isinstance(body, dict) or "result" not in body:
            raise NoReply(f"{method}: no usable reply from the endpoint (HTTP {reply.status_code})")
        return body["result"]

    async def number(self, method: str, *params: Any) -> int:
        """Return a result that is a quantity."""
        return _number(method, await self.call(method, *params))


@dataclass(frozen=True, slots=True)
class Transaction:
    """Ready to be signed. Fees are in wei per unit of gas; ``to`` None creates a contract."""

    chain_id: int
    sender: str
    to: str | None
    data: bytes
    nonce: int
    gas: int
    tip: int
    max_fee: int

    @property
    def most_expensive(self) -> int:
        """What it costs at most, in wei."""
        return self.gas * self.max_fee


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """What the endpoint gets, and the hash by which the chain will know it."""

    raw: str
    hash: str


@dataclass(frozen=True, slots=True)
class Mined:
    """Where a transaction stands on the chain."""

    hash: str
    block_number: int
    block_hash: str
    gas_used: int
    fee: int
    """What it cost in all, in wei."""
    contract: str | None


async def price(chain: ChainClient, *, sender: str, to: str | None, data: bytes) -> Transaction:
    """The transaction with nonce, gas and fees as the node tells them; a call that would revert raises here."""
    message = {"from": sender, "data": "0x" + data.hex(), **({"to": to} if to else {})}
    gas = await chain.number("eth_estimateGas", message)
    block = await chain.call("eth_getBlockByNumber", "latest", False)
    base_fee = block.get("baseFeePerGas") if isinstance(block, dict) else None
    if base_fee is None:
        raise TransactionFault("the chain has no base fee; expected one with EIP-1559")
    tip = await _tip(chain)
    return Transaction(
        chain_id=await chain.number("eth_chainId"),
        sender=sender,
        to=to,
        data=data,
        nonce=await chain.number("eth_getTransactionCount", sender, "pending"),
        # The state may change before the block: a slot that was warm or written to costs more.
        gas=gas + gas // 5,
        tip=tip,
        # The base fee rises by at most an eighth per block (EIP-1559): twice as much lasts six full blocks.
        max_fee=2 * _number("baseFeePerGas", base_fee) + tip,
    )


async def _tip(chain: ChainClient) -> int:
    try:
        return await chain.number("eth_maxPriorityFeePerGas")
    except NoReply:
        raise
    except TransactionFault:
        # Not every node knows that method; none may be needed on an idle chain.
        price_now = await chain.number("eth_gasPrice")
        return price_now // 10


def sign(transaction: Transaction, key: str) -> SignedTransaction:
    """Sign with the sender's private key (0x and 64 hex digits), bound to its chain (EIP-155 by EIP-1559)."""
    from eth_account import Account

    signed = Account.sign_transaction(
        {
            "type": 2,
            "chainId": transaction.chain_id,
            "nonce": transaction.nonce,
            "gas": transaction.gas,
            "maxPriorityFeePerGas": transaction.tip,
            "maxFeePerGas": transaction.max_fee,
            "value": 0,
            "data": transaction.data,
            **({"to": transaction.to} if transaction.to else {}),
        },
        key,
    )
    raw = bytes(signed.raw_transaction)
    return SignedTransaction("0x" + raw.hex(), "0x" + keccak256(raw).hex())


async def send(chain: ChainClient, signed: SignedTransaction) -> None:
    """Hand it to the endpoint, again if its answer is lost: the same bytes are the same transaction."""
    try:
        await chain.call("eth_sendRawTransaction", signed.raw)
    except NoReply:
        try:
            await chain.call("eth_sendRawTransaction", signed.raw)
        except NoReply:
            # Perhaps it arrived; whoever waits for it will see.
            return
        except TransactionFault as refusal:
            if not any(words in refusal.message.lower() for words in _SENT_BEFORE):
                raise


async def wait_until_mined(
    chain: ChainClient, tx_hash: str, *, wait_seconds: float, waiting: Callable[[], None] = lambda: None
) -> Mined:
    """Return where it stands; raise :class:`TransactionFault` if it reverted, :class:`NotMinedYet` in the end.

    ``waiting`` is called before each pause.
    """
    deadline = time.monotonic() + wait_seconds
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        try:
            receipt = await chain.call("eth_getTransactionReceipt", tx_hash)
        except NoReply:
            receipt = None
        if isinstance(receipt, dict):
            return _mined(tx_hash, receipt)
        if time.monotonic() > deadline:
            raise NotMinedYet(f"transaction {tx_hash} was not mined in {wait_seconds:g} s; it may still be")
        waiting()
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


def _mined(tx_hash: str, receipt: dict[str, Any]) -> Mined:
    if receipt.get("status") != "0x1":
        raise TransactionFault(f"transaction {tx_hash} reverted")
    contract = receipt.get("contractAddress")
    gas_used = _number("gasUsed", receipt.get("gasUsed"))
    return Mined(
        hash=tx_hash,
        block_number=_number("blockNumber", receipt.get("blockNumber")),
        block_hash=str(receipt.get("blockHash")),
        gas_used=gas_used,
        fee=gas_used * _number("effectiveGasPrice", receipt.get("effectiveGasPrice", "0x0")),
        contract=checksum_address(contract) if isinstance(contract, str) else None,
    )


def _json(content: bytes) -> Any:
    if len(content) > _MAX_REPLY_BYTES or is_too_deep(content):
        return None
    try:
        return json.loads(content)
    except ValueError:
        return None


def _number(name: str, value: Any) -> int:
    try:
        return int(value, 16)
    except (TypeError, ValueError):
        raise NoReply(f"{name}: the endpoint answered with something else than a quantity") from None
