"""Transactions of one's own: priced by the node (EIP-1559), signed here, sent, and waited for; by web3.

The key signs and goes nowhere: the endpoint gets the signed bytes. Faults carry the endpoint's own words, for they
say what to mend ("insufficient funds …"); URLs in them are redacted. web3 takes a second to import: commands that
change a chain import this module, the service never does.
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
from iidq.provenance.ethereum.rpc import RpcEndpoint, open_http

_REQUEST_TIMEOUT_SECONDS: Final = 30
_MAX_WORDS: Final = 300
_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 2.0
# Nodes that are asked twice for the same: the first answer was lost on the way, and the transaction was not.
_SENT_BEFORE: Final = ("already known", "alreadyknown", "already imported", "known transaction", "nonce too low")

Answer = TypeVar("Answer")


class TransactionFault(IidqError):
    """The endpoint refused, the transaction reverted, or it was not mined in time; the message says which."""

    code = "transaction.failed"


class NotMinedYet(TransactionFault):
    """The transaction was sent, and no block has it so far."""

    code = "transaction.pending"


class _OneEndpoint(AsyncJSONBaseProvider):
    """Carries web3's calls over our RPC client, so that its bounds hold here too."""

    # EIP-3668: a contract that is read could have us call any address that it names.
    global_ccip_read_enabled = False

    def __init__(self, endpoint: RpcEndpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Return the endpoint's answer; raise :class:`RpcFault`."""
        body = await self._endpoint.post(self.encode_rpc_request(method, params))
        response: RPCResponse = from_json(body, allow_inf_nan=False)
        if isinstance(error := response.get("error"), dict) and not isinstance(error.get("data"), str):
            # web3 would call every such error a revert, an exhausted quota too.
            error.pop("data", None)
        return response


@asynccontextmanager
async def chain_at(url: str, *, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[AsyncWeb3[Any]]:
    """Open web3 on an endpoint that the operator names; :func:`ask` awaits its calls."""
    # Reading the certificate authorities takes 50 ms, and plain HTTP needs none.
    tls = not url.startswith("http://")
    async with open_http(read_seconds=_REQUEST_TIMEOUT_SECONDS, tls=tls, transport=transport) as http:
        endpoint = RpcEndpoint(url, http, deadline_seconds=_REQUEST_TIMEOUT_SECONDS)
        # Chains of few validators have longer blocks' extraData than web3 takes by itself (Polygon, BNB).
        yield AsyncWeb3(_OneEndpoint(endpoint), middleware=[ExtraDataToPOAMiddleware])


async def ask(asked: Awaitable[Answer]) -> Answer:
    """Await one of web3's calls; raise :class:`RpcFault` without a usable answer, :class:`TransactionFault` if refused.

    web3's own errors are many, and show whole answers.
    """
    try:
        return await asked
    except IidqError:
        raise
    except OffchainLookup as error:
        raise TransactionFault("the contract asks for a lookup off the chain (EIP-3668), which is not done") from error
    except ContractLogicError as error:
        raise TransactionFault(_words(error.message or "execution reverted")) from error
    except Web3RPCError as error:
        raise TransactionFault(_words(error.rpc_response["error"]["message"])) from error  # type: ignore[index]
    except Exception as error:
        # What a formatter meets in a senseless answer may end in any error, KeyError to OverflowError.
        raise RpcFault("the RPC endpoint's answer makes no sense for the call", code="rpc.nonsense") from error


def _words(text: str) -> str:
    return redact_url(" ".join(text.split())[:_MAX_WORDS])


@dataclass(frozen=True, slots=True)
class Mined:
    """Where a transaction stands on the chain."""

    hash: str
    block_number: int
    block_hash: HexStr
    fee: int
    """What it cost in all, in wei."""
    contract: str | None


async def price(chain: AsyncWeb3[Any], *, sender: ChecksumAddress, to: str | None, data: HexStr) -> TxParams:
    """Return the transaction with nonce, gas and fees as the node sets them; a call that would revert raises here."""
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
        # web3's property would warn on stderr and fall back to at least a gwei: too much on most rollups.
        tip = int(await chain.manager.coro_request(RPCEndpoint("eth_maxPriorityFeePerGas"), []), 16)
    except Web3RPCError:
        # Not every node knows that method; none may be needed on an idle chain.
        tip = await chain.eth.gas_price // 10
    transaction["chainId"] = await chain.eth.chain_id
    transaction["nonce"] = await chain.eth.get_transaction_count(sender, "pending")
    # The state may change before the block: a slot that was warm or written to costs more.
    transaction["gas"] = gas + gas // 5
    transaction["maxPriorityFeePerGas"] = Wei(tip)
    # The base fee rises by at most an eighth per block (EIP-1559): twice as much lasts six full blocks.
    transaction["maxFeePerGas"] = Wei(2 * base_fee + tip)
    return transaction


def most_expensive(transaction: TxParams) -> int:
    """Return what a priced transaction costs at most, in wei."""
    return transaction["gas"] * int(transaction["maxFeePerGas"])


def sign(transaction: TxParams, key: str) -> SignedTransaction:
    """Sign with the sender's private key (0x and 64 hex digits), bound to its chain (EIP-155 by EIP-1559)."""
    signed: SignedTransaction = Account.sign_transaction(transaction, key)
    return signed


async def send(chain: AsyncWeb3[Any], signed: SignedTransaction) -> None:
    """Hand it to the endpoint, again if its answer is lost: the same bytes are the same transaction."""
    raw = signed.raw_transaction
    try:
        await ask(chain.eth.send_raw_transaction(raw))
    except RpcFault:
        try:
            await ask(chain.eth.send_raw_transaction(raw))
        except RpcFault:
            # Perhaps it arrived; the wait for its block shows that.
            return
        except TransactionFault as refusal:
            if not any(words in refusal.message.lower() for words in _SENT_BEFORE):
                raise


async def wait_until_mined(chain: AsyncWeb3[Any], tx_hash: HexStr, *, wait_seconds: float) -> Mined:
    """Return where it stands; raise :class:`TransactionFault` if it reverted, :class:`NotMinedYet` in the end.

    web3's own wait ends with the first lost answer, and asks a slow chain as often as a fast one.
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
        # It is unknown so far, or the endpoint is busy: neither says anything about the transaction.
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
