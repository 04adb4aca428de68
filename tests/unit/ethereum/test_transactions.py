"""Transactions of the own account, against an endpoint with scripted answers."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.datastructures import SignedTransaction
from eth_typing import HexStr
from hypothesis import given
from hypothesis import strategies as st
from web3 import AsyncWeb3
from web3.types import TxParams, Wei

from iidq.embedded.demo_registry import encode_call
from iidq.errors import RpcFault
from iidq.provenance.ethereum.address import keccak256
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.ethereum.registry import encode_register_call
from iidq.provenance.ethereum.transactions import (
    NotMinedYet,
    TransactionFault,
    ask,
    chain_at,
    most_expensive,
    price,
    send,
    sign,
    wait_until_mined,
)
from tests.unit.guarded_http.scripted_server import always, response, serving

KEY = DEVELOPMENT_KEYS[0]
SENDER = Account.from_key(KEY).address
HASH = HexStr("0x" + "ab" * 32)
PRICED: TxParams = {
    "from": SENDER,
    "to": SENDER,
    "data": b"\x01",
    "value": Wei(0),
    "chainId": 8453,
    "nonce": 3,  # type: ignore[typeddict-item]
    "gas": 12_000,
    "maxPriorityFeePerGas": Wei(7),
    "maxFeePerGas": Wei(207),
}
SIGNED: SignedTransaction = sign(PRICED, KEY)
RAW = SIGNED.raw_transaction.to_0x_hex()
RECEIPT = {
    "status": "0x1",
    "blockNumber": "0x10",
    "blockHash": "0x" + "b" * 64,
    "gasUsed": "0x5208",
    "effectiveGasPrice": "0x2",
    "contractAddress": None,
}
Web = AsyncWeb3[Any]
Answer = Callable[[Any], httpx.Response]


def result(value: Any) -> httpx.Response:
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": value})


def error(message: str, *, code: int = -32000, **more: Any) -> httpx.Response:
    told = {"code": code, "message": message, **more}
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "error": told})


class Endpoint:
    """Return each method's answers in turn, and repeat the last; an exception is a lost connection."""

    def __init__(self, **answers: httpx.Response | Exception | list[httpx.Response | Exception]) -> None:
        self._answers = {name: each if isinstance(each, list) else [each] for name, each in answers.items()}
        self.calls: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        self.calls.append((asked["method"], asked["params"]))
        answers = self._answers[asked["method"]]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def chain(self) -> AbstractAsyncContextManager[Web]:
        return chain_at("http://node", transport=httpx.MockTransport(self))


@given(content_hash=st.binary(min_size=32, max_size=32), uri=st.text(max_size=200))
def test_the_call_is_encoded_as_the_abi_asks(content_hash: bytes, uri: str) -> None:
    """``register(bytes32,string)`` equals eth_abi's encoding, for any text."""
    expected = keccak256(b"register(bytes32,string)")[:4] + encode(["bytes32", "string"], [content_hash, uri])
    assert encode_call(_OFFLINE, "register", "0x" + content_hash.hex(), uri) == "0x" + expected.hex()
    assert encode_register_call("0x" + content_hash.hex(), uri) == "0x" + expected.hex()


_OFFLINE: Web = AsyncWeb3()
NODE: dict[str, Any] = {
    "eth_estimateGas": result("0x2710"),
    "eth_getBlockByNumber": result({"baseFeePerGas": "0x64"}),
    "eth_maxPriorityFeePerGas": result("0x7"),
    "eth_chainId": result("0x2105"),
    "eth_getTransactionCount": result("0x3"),
}


async def priced(endpoint: Endpoint) -> TxParams:
    async with endpoint.chain() as chain:
        return await price(chain, sender=SENDER, to=SENDER, data=HexStr("0x01"))


async def test_the_node_sets_the_price() -> None:
    """The price is gas with a reserve, twice the base fee and the tip; the nonce counts pending transactions."""
    endpoint = Endpoint(**NODE)
    transaction = await priced(endpoint)
    assert transaction == {**PRICED, "data": "0x01"}
    assert most_expensive(transaction) == 12_000 * 207
    assert ("eth_getTransactionCount", [SENDER, "pending"]) in endpoint.calls


async def test_a_chain_of_few_validators_sets_the_price_too() -> None:
    """A chain of few validators sets the price too: its signed blocks have a longer extraData than web3's default."""
    block = result({"baseFeePerGas": "0x64", "extraData": "0x" + "00" * 97})
    assert (await priced(Endpoint(**NODE | {"eth_getBlockByNumber": block})))["maxFeePerGas"] == 207


async def test_a_node_without_tips_is_asked_for_its_price() -> None:
    """A node without eth_maxPriorityFeePerGas is asked for its gas price."""
    endpoint = Endpoint(
        **NODE | {"eth_maxPriorityFeePerGas": error("unknown", code=-32601), "eth_gasPrice": result("0x64")}
    )
    assert (await priced(endpoint))["maxPriorityFeePerGas"] == 10


def revert(data: str) -> httpx.Response:
    return error("execution reverted", code=3, data=data)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"eth_estimateGas": error("execution reverted: already registered", code=3)}, "reverted: already registered$"),
        ({"eth_estimateGas": revert("0x4e487b71" + "00" * 31 + "11")}, "Panic error 0x11"),
        ({"eth_estimateGas": revert("0xdeadbeef")}, "0xdeadbeef"),
        ({"eth_estimateGas": error("quota used up", data={"see": "here"})}, "failed: quota used up$"),
        ({"eth_estimateGas": error("see https://node/?api-key=hidden")}, r"api-key=\*\*\*"),
        ({"eth_chainId": error("two\nlines" + 400 * "x")}, "two linesx{291}$"),
        ({"eth_getBlockByNumber": result({})}, "EIP-1559"),
    ],
)
async def test_a_refusal_is_told_in_the_endpoints_words(answers: dict[str, Any], said: str) -> None:
    """A refusal is a single line without keys; an encoded revert reason is decoded."""
    with pytest.raises(TransactionFault, match=said):
        await priced(Endpoint(**NODE | answers))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (result("x"), "makes no sense"),
        (httpx.Response(500), "HTTP 500"),
        (httpx.Response(200, json=[]), "makes no sense"),
        (httpx.Response(200, json={}), "makes no sense"),
        (httpx.Response(200, content=b"<html>"), "makes no sense"),
        (httpx.Response(200, content=b"[" * 100_000), "makes no sense"),
        (httpx.Response(200, content=bytes((8 << 20) + 1)), "too long"),
        (httpx.Response(307, headers={"Location": "http://elsewhere"}), "HTTP 307"),
        (httpx.ConnectError("refused"), "could not be reached"),
        (httpx.ReadTimeout("slow"), "in time"),
    ],
)
async def test_an_endpoint_without_a_usable_answer_is_a_fault_of_its_own(
    answer: httpx.Response | Exception, said: str
) -> None:
    """The bounds of the service's RPC client hold; no redirect is followed, and nothing of the answer is shown."""
    with pytest.raises(RpcFault, match=said) as caught:
        await priced(Endpoint(**NODE | {"eth_chainId": answer}))
    assert "html" not in caught.value.message


async def test_no_contract_has_an_address_called() -> None:
    """A revert with a lookup by HTTP (EIP-3668) is a fault, and the address is not called."""
    async with serving(always(response(b'{"data":"0x"}'))) as server:
        lookup = encode(
            ["address", "string[]", "bytes", "bytes4", "bytes"], [SENDER, [server.url], b"", b"\0\0\0\0", b""]
        )
        async with Endpoint(eth_call=revert("0x556f1830" + lookup.hex())).chain() as chain:
            with pytest.raises(TransactionFault, match="EIP-3668"):
                await ask(chain.eth.call({"to": SENDER, "data": HexStr("0x")}))
        assert server.connections == 0


def test_a_signature_holds_for_one_chain() -> None:
    """The signed bytes are the transaction of the key's owner, under the hash of the chain."""
    assert SIGNED.hash == keccak256(SIGNED.raw_transaction)
    assert Account.recover_transaction(SIGNED.raw_transaction) == SENDER
    assert RAW.startswith("0x02")


@pytest.mark.parametrize("second", [result(HASH), error("already known"), error("nonce too low"), httpx.ReadError("")])
async def test_a_lost_answer_is_no_lost_transaction(second: httpx.Response | Exception) -> None:
    """The same bytes are sent again after a lost answer; a node that already has the bytes is no fault."""
    endpoint = Endpoint(eth_sendRawTransaction=[httpx.ReadError("lost"), second])
    async with endpoint.chain() as chain:
        await send(chain, SIGNED)
    assert endpoint.calls == [("eth_sendRawTransaction", [RAW])] * 2


async def test_a_refusal_is_a_fault() -> None:
    """A transaction refused by the node at once is a fault."""
    async with Endpoint(eth_sendRawTransaction=error("insufficient funds for gas")).chain() as chain:
        with pytest.raises(TransactionFault, match="insufficient funds for gas"):
            await send(chain, SIGNED)


async def test_its_block_is_waited_for() -> None:
    """An endpoint that is away, busy, or without the receipt is polled again."""
    answers: list[httpx.Response | Exception] = [result(None), httpx.ReadError("away"), error("busy"), result(RECEIPT)]
    async with Endpoint(eth_getTransactionReceipt=answers).chain() as chain:
        mined = await wait_until_mined(chain, HASH, wait_seconds=20)
    assert (mined.block_number, mined.fee) == (16, 42_000)


async def test_waiting_has_an_end() -> None:
    """A transaction not mined in time is reported as such, not as failed."""
    async with Endpoint(eth_getTransactionReceipt=result(None)).chain() as chain:
        with pytest.raises(NotMinedYet, match="it may still be"):
            await wait_until_mined(chain, HASH, wait_seconds=0)


async def test_a_reverted_transaction_is_a_fault() -> None:
    """A mined transaction that reverted is a fault."""
    async with Endpoint(eth_getTransactionReceipt=result({**RECEIPT, "status": "0x0"})).chain() as chain:
        with pytest.raises(TransactionFault, match="reverted"):
            await wait_until_mined(chain, HASH, wait_seconds=20)
