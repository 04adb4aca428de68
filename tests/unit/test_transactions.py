"""Transactions of one's own, against an endpoint that answers as it is told to."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from eth_abi.abi import encode
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from iidq.embedded.accounts import DEVELOPMENT_KEYS
from iidq.provenance.address import keccak256
from iidq.provenance.registry import encode_register_call
from iidq.provenance.transactions import (
    ChainClient,
    NoReply,
    NotMinedYet,
    SignedTransaction,
    Transaction,
    TransactionFault,
    price,
    send,
    sign,
    wait_until_mined,
)

KEY = DEVELOPMENT_KEYS[0]
SENDER = Account.from_key(KEY).address
SIGNED = SignedTransaction("0x02", "0xabc")
RECEIPT = {
    "status": "0x1",
    "blockNumber": "0x10",
    "blockHash": "0xb",
    "gasUsed": "0x5208",
    "effectiveGasPrice": "0x2",
    "contractAddress": None,
}
Answer = Callable[[Any], httpx.Response]


def result(value: Any) -> httpx.Response:
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": value})


def error(message: str) -> httpx.Response:
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": message}})


class Endpoint:
    """Gives each method's answers one after the other, the last one again and again; an exception is a lost line."""

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

    def client(self) -> ChainClient:
        return ChainClient("http://node", transport=httpx.MockTransport(self))


@given(content_hash=st.binary(min_size=32, max_size=32), uri=st.text(max_size=200))
def test_the_call_is_encoded_as_the_abi_asks(content_hash: bytes, uri: str) -> None:
    """``register(bytes32,string)`` is what eth_abi makes of it, for any text."""
    encoded = encode_register_call("0x" + content_hash.hex(), uri)
    assert encoded == keccak256(b"register(bytes32,string)")[:4] + encode(["bytes32", "string"], [content_hash, uri])


NODE: dict[str, Any] = {
    "eth_estimateGas": result("0x2710"),
    "eth_getBlockByNumber": result({"baseFeePerGas": "0x64"}),
    "eth_maxPriorityFeePerGas": result("0x7"),
    "eth_chainId": result("0x2105"),
    "eth_getTransactionCount": result("0x3"),
}


async def test_the_node_sets_the_price() -> None:
    """Gas with a reserve, twice the base fee and the tip; the nonce counts what still waits."""
    endpoint = Endpoint(**NODE)
    priced = await price(endpoint.client(), sender=SENDER, to=SENDER, data=b"\x01")
    assert priced == Transaction(8453, SENDER, SENDER, b"\x01", nonce=3, gas=12_000, tip=7, max_fee=207)
    assert priced.most_expensive == 12_000 * 207
    assert ("eth_getTransactionCount", [SENDER, "pending"]) in endpoint.calls


async def test_a_node_without_tips_is_asked_for_its_price() -> None:
    """Not every node knows eth_maxPriorityFeePerGas."""
    endpoint = Endpoint(**NODE | {"eth_maxPriorityFeePerGas": error("unknown"), "eth_gasPrice": result("0x64")})
    assert (await price(endpoint.client(), sender=SENDER, to=None, data=b"")).tip == 10


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"eth_estimateGas": error("execution reverted: already registered")}, "already registered"),
        ({"eth_estimateGas": error("see https://node/?api-key=hidden")}, r"api-key=\*\*\*"),
        ({"eth_getBlockByNumber": result({})}, "EIP-1559"),
        ({"eth_chainId": result("x")}, "something else than a quantity"),
        ({"eth_chainId": httpx.Response(500)}, "HTTP 500"),
        ({"eth_chainId": httpx.Response(200, json=[])}, "no usable reply"),
        ({"eth_chainId": httpx.ConnectError("refused")}, "ConnectError"),
    ],
)
async def test_what_cannot_be_priced_is_told(answers: dict[str, Any], said: str) -> None:
    """In the endpoint's own words, without keys."""
    with pytest.raises(TransactionFault, match=said):
        await price(Endpoint(**NODE | answers).client(), sender=SENDER, to=SENDER, data=b"")


def test_a_signature_holds_for_one_chain() -> None:
    """The signed bytes are the transaction of the key's owner, under the hash that the chain will know it by."""
    signed = sign(Transaction(8453, SENDER, SENDER, b"\x01", nonce=3, gas=12_000, tip=7, max_fee=207), KEY)
    assert signed.hash == "0x" + keccak256(bytes.fromhex(signed.raw[2:])).hex()
    assert Account.recover_transaction(signed.raw) == SENDER
    assert signed.raw.startswith("0x02")


@pytest.mark.parametrize(
    "second", [result("0xabc"), error("already known"), error("nonce too low"), httpx.ReadError("")]
)
async def test_a_lost_answer_is_no_lost_transaction(second: httpx.Response | Exception) -> None:
    """The same bytes are sent once more; that the node knows them already is no fault."""
    endpoint = Endpoint(eth_sendRawTransaction=[httpx.ReadError("lost"), second])
    await send(endpoint.client(), SIGNED)
    assert endpoint.calls == [("eth_sendRawTransaction", ["0x02"])] * 2


async def test_a_refusal_is_a_fault() -> None:
    """What the node refuses at once was not sent."""
    with pytest.raises(TransactionFault, match="insufficient funds"):
        await send(Endpoint(eth_sendRawTransaction=error("insufficient funds for gas")).client(), SIGNED)


async def test_its_block_is_waited_for() -> None:
    """An endpoint that is away for a moment, or does not know it yet, is asked again."""
    endpoint = Endpoint(eth_getTransactionReceipt=[result(None), httpx.ReadError("away"), result(RECEIPT)])
    mined = await wait_until_mined(endpoint.client(), "0xabc", wait_seconds=20)
    assert (mined.block_number, mined.fee) == (16, 42_000)


async def test_waiting_has_an_end() -> None:
    """Not mined in time is no failure: the text says that it may still be."""
    with pytest.raises(NotMinedYet, match="it may still be"):
        await wait_until_mined(Endpoint(eth_getTransactionReceipt=result(None)).client(), "0xabc", wait_seconds=0)


async def test_a_reverted_transaction_is_a_fault() -> None:
    """Mined is not done."""
    endpoint = Endpoint(eth_getTransactionReceipt=result({**RECEIPT, "status": "0x0"}))
    with pytest.raises(TransactionFault, match="reverted"):
        await wait_until_mined(endpoint.client(), "0xabc", wait_seconds=20)
    assert not issubclass(TransactionFault, NoReply)
