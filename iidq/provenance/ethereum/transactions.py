"""Transactions of the operator: priced by the node (EIP-1559), signed here, sent, and awaited; with web3.

The private key never leaves the process: the endpoint gets signed bytes. Faults quote the endpoint's message, which
names the remedy ("insufficient funds …"), with URLs redacted. web3 takes a second to import, so only the commands that
change a chain import this module.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
from eth_account import Account
from eth_account.datastructures import SignedTransaction
from eth_typing import ChecksumAddress, HexStr
from pydantic_core import from_json
from web3 import AsyncWeb3
from web3.exceptions import ContractLogicError, OffchainLookup, Web3RPCError
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse, TxParams, Wei

from iidq.errors import IidqError, RpcFault
from iidq.observability.redaction import redact_url
from iidq.provenance.ethereum.rpc_http import BodyTooLong, open_http, post_json

_REQUEST_TIMEOUT_SECONDS: Final = 30
_MAX_ANSWER_BYTES: Final = 8 << 20
_MAX_MESSAGE_CHARACTERS: Final = 300
_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 2.0
# Refusals of a transaction that the node has already: only the first answer was lost.
_SENT_BEFORE: Final = ("already known", "alreadyknown", "already imported", "known transaction", "nonce too low")

Answer = TypeVar("Answer")


class TransactionFault(IidqError):
    """The endpoint refused, the transaction reverted, or it was not mined in time; the message says which."""

    code = "transaction.failed"


class NotMinedYet(TransactionFault):
    """The transaction was sent, and no block has it so far."""

    code = "transaction.pending"


class _OneEndpoint(AsyncJSONBaseProvider):
    """A web3 provider over the bounded POSTs that the service uses."""

    # EIP-3668: otherwise a contract could make web3 call any address.
    global_ccip_read_enabled = False

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        super().__init__()
        self._url = url
        self._http = http

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Return the endpoint's answer; raise :class:`RpcFault`."""
        try:
            answer = await post_json(
                self._http,
                self._url,
                self.encode_rpc_request(method, params),
                deadline_seconds=_REQUEST_TIMEOUT_SECONDS,
                max_bytes=_MAX_ANSWER_BYTES,
            )
        except BodyTooLong:
            raise RpcFault("the RPC endpoint's answer is too long", code="rpc.too_long") from None
        response: RPCResponse = from_json(answer.body, allow_inf_nan=False)
        if isinstance(error := response.get("error"), dict) and not isinstance(error.get("data"), str):
            # web3 would report every such error as a revert, an exhausted quota too.
            error.pop("data", None)
        return response


@asynccontextmanager
async def chain_at(url: str, *, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[AsyncWeb3[Any]]:
    """Open web3 on an operator's endpoint; :func:`ask` awaits the calls."""
    # Reading the certificate authorities takes 50 ms, and plain HTTP needs none.
    tls = not url.startswith("http://")
    async with open_http(read_seconds=_REQUEST_TIMEOUT_SECONDS, tls=tls, transport=transport) as http:
        # Polygon, BNB and similar chains have a longer extraData than web3 accepts by default.
        yield AsyncWeb3(_OneEndpoint(url, http), middleware=[ExtraDataToPOAMiddleware])


async def ask(asked: Awaitable[Answer]) -> Answer:
    """Await a web3 call; raise :class:`RpcFault` without a usable answer, :class:`TransactionFault` for a refusal.

    web3's own errors are many, and quote whole answers.
    """
    try:
        return await asked
    except IidqError:
        raise
    except OffchainLookup as error:
        raise TransactionFault("the contract asks for a lookup off the chain (EIP-3668), which is not done") from error
    except ContractLogicError as error:
        raise TransactionFault(_shown(error.message or "execution reverted")) from error
    except Web3RPCError as error:
        raise TransactionFault(_shown(error.rpc_response["error"]["message"])) from error  # type: ignore[index]
    except Exception as error:
        # A formatter of web3 can raise any error for a senseless answer, from KeyError to OverflowError.
        raise RpcFault("the RPC endpoint's answer makes no sense for the call", code="rpc.nonsense") from error


def _shown(text: str) -> str:
    return redact_url(" ".join(text.split())[:_MAX_MESSAGE_CHARACTERS])


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction in a block."""

    hash: str
    """The transaction's hash."""
    block_number: int
    """Height of the block."""
    block_hash: HexStr
    """Hash of the block."""
    fee: int
    """Total cost in wei; 0 if the node does not report the gas price."""
    contract: str | None
    """Address of the deployed contract; None for any other transaction."""


async def price(chain: AsyncWeb3[Any], *, sender: ChecksumAddress, to: str | None, data: HexStr) -> TxParams:
    """Return the transaction with nonce, gas and fees; raise :class:`TransactionFault` if it would revert."""
    return await ask(_price(chain, sender, to, data))


async def _price(chain: AsyncWeb3[Any], sender: ChecksumAddress, to: str | None, data: HexStr) -> TxParams:
    transaction: TxParams = {"from": sender, "data": data, "value": Wei(0)}
    if to is not None:
        transaction["to"] = to
    gas = await chain.eth.estimate_gas(transaction)
    base_fee = (await chain.eth.get_block("latest")).get("baseFeePerGas")
    if base_fee is None:
        raise TransactionFault("the chain has no base fee; expected one with EIP-1559")
    try:
        # web3's property warns on stderr, and falls back to at least a gwei: too much on most rollups.
        tip = int(await chain.manager.coro_request(RPCEndpoint("eth_maxPriorityFeePerGas"), []), 16)
    except Web3RPCError:
        # Some nodes lack that method.
        tip = await chain.eth.gas_price // 10
    transaction["chainId"] = await chain.eth.chain_id
    transaction["nonce"] = await chain.eth.get_transaction_count(sender, "pending")
    # A margin of a fifth: the state may change before the block, and storage may cost more.
    transaction["gas"] = gas + gas // 5
    transaction["maxPriorityFeePerGas"] = Wei(tip)
    # The base fee rises by at most an eighth per block (EIP-1559): twice the fee lasts for six full blocks.
    transaction["maxFeePerGas"] = Wei(2 * base_fee + tip)
    return transaction


def most_expensive(transaction: TxParams) -> int:
    """Return the highest cost of a priced transaction, in wei."""
    return transaction["gas"] * int(transaction["maxFeePerGas"])


def sign(transaction: TxParams, key: str) -> SignedTransaction:
    """Sign with the sender's private key (0x and 64 hex digits); the signature is bound to the chain."""
    signed: SignedTransaction = Account.sign_transaction(transaction, key)
    return signed


async def send(chain: AsyncWeb3[Any], signed: SignedTransaction) -> None:
    """Send a signed transaction; send it again if the answer is lost, since equal bytes are one transaction."""
    raw = signed.raw_transaction
    try:
        await ask(chain.eth.send_raw_transaction(raw))
    except RpcFault:
        try:
            await ask(chain.eth.send_raw_transaction(raw))
        except RpcFault:
            # It may have arrived; the wait for the block shows that.
            return
        except TransactionFault as refusal:
            if not any(words in refusal.message.lower() for words in _SENT_BEFORE):
                raise


async def wait_until_mined(chain: AsyncWeb3[Any], tx_hash: HexStr, *, wait_seconds: float) -> Mined:
    """Wait for the transaction's block; raise :class:`TransactionFault` for a revert, :class:`NotMinedYet` at the end.

    web3's own wait ends with the first lost answer, and polls a slow chain as often as a fast one.
    """
    deadline = time.monotonic() + wait_seconds
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        try:
            mined = await ask(_receipt(chain, tx_hash))
        except RpcFault:
            mined = None
        if mined is not None:
            return mined
        if time.monotonic() > deadline:
            raise NotMinedYet(f"transaction {tx_hash} was not mined in {wait_seconds:g} s; it may still be")
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


async def _receipt(chain: AsyncWeb3[Any], tx_hash: HexStr) -> Mined | None:
    try:
        receipt = await chain.eth.get_transaction_receipt(tx_hash)
    except Web3RPCError:
        # Unknown so far, or a busy endpoint.
        return None
    if receipt["status"] != 1:
        raise TransactionFault(f"transaction {tx_hash} reverted")
    return Mined(
        hash=tx_hash,
        block_number=receipt["blockNumber"],
        block_hash=HexStr(receipt["blockHash"].to_0x_hex()),
        fee=receipt["gasUsed"] * receipt.get("effectiveGasPrice", 0),
        contract=receipt.get("contractAddress"),
    )
