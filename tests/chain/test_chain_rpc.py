"""The replies of a chain to clients: the same from py-evm and from anvil."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from eth_account import Account

from iidq.embedded.demo_registry import deploy_registry, register
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS

RpcCall = Callable[..., Any]
ACCOUNT = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"
OTHER = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
QUANTITY = r"0x(0|[1-9a-f][0-9a-f]*)"
SENDER = Account.from_key(DEVELOPMENT_KEYS[7])


def transfer(rpc: RpcCall, **fields: Any) -> str:
    """Return a signed transfer of one wei, as raw bytes in hex; ``fields`` replace the right fields."""
    nonce = int(rpc("eth_getTransactionCount", SENDER.address, "pending")["result"], 16)
    right = {"chainId": 31337, "nonce": nonce, "to": bytes.fromhex(OTHER[2:]), "value": 1, "gas": 21000}
    fees = {"maxFeePerGas": 5 * 10**9, "maxPriorityFeePerGas": 10**9}
    return str(SENDER.sign_transaction(right | fees | fields).raw_transaction.to_0x_hex())


def mined(rpc: RpcCall, tx_hash: str) -> dict[str, Any]:
    """Return the transaction's receipt; anvil replies before mining."""
    receipt = rpc("eth_getTransactionReceipt", tx_hash)["result"]
    if receipt is None:
        rpc("evm_mine")
        receipt = rpc("eth_getTransactionReceipt", tx_hash)["result"]
    assert isinstance(receipt, dict)
    return receipt


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_chainId", []),
        ("eth_blockNumber", []),
        ("eth_maxPriorityFeePerGas", []),
        ("eth_getBalance", [ACCOUNT, "latest"]),
        ("eth_getTransactionCount", [ACCOUNT, "pending"]),
        ("eth_estimateGas", [{"from": ACCOUNT, "to": OTHER, "value": "0x1"}]),
    ],
)
def test_quantities_have_no_leading_zeros(chain_rpc: RpcCall, method: str, params: list[Any]) -> None:
    """Quantities in replies are 0x and hex digits without leading zeros."""
    assert re.fullmatch(QUANTITY, chain_rpc(method, *params)["result"])


@pytest.mark.parametrize("tag", ["latest", "safe", "finalized", "pending", "earliest", "0x0"])
def test_every_block_tag_is_understood(chain_rpc: RpcCall, tag: str) -> None:
    """Reads of state and of blocks accept every tag of the specification."""
    assert chain_rpc("eth_getCode", ACCOUNT, tag)["result"] == "0x"
    assert chain_rpc("eth_getBlockByNumber", tag, False)["result"]["timestamp"].startswith("0x")


def test_safe_and_finalized_blocks_move(chain_rpc: RpcCall) -> None:
    """The safe and finalized blocks are later than genesis after a few blocks, so every setting of the pinned block
    works.
    """
    for _ in range(3):
        chain_rpc("evm_mine")
    for tag in ("safe", "finalized"):
        assert int(chain_rpc("eth_getBlockByNumber", tag, False)["result"]["number"], 16) > 0


def test_a_block_looks_the_same_by_number_and_by_hash(chain_rpc: RpcCall) -> None:
    """A block read by number equals the block read by hash: transactions as hashes, and a base fee."""
    sent = chain_rpc("eth_sendRawTransaction", transfer(chain_rpc))["result"]
    receipt = mined(chain_rpc, sent)
    by_number = chain_rpc("eth_getBlockByNumber", receipt["blockNumber"], False)["result"]
    assert by_number == chain_rpc("eth_getBlockByHash", receipt["blockHash"], False)["result"]
    assert (by_number["hash"], by_number["transactions"]) == (receipt["blockHash"], [sent])
    assert set(by_number) >= {"baseFeePerGas", "gasLimit", "gasUsed", "number", "parentHash", "timestamp"}


def test_a_transaction_and_its_receipt_have_their_fields(chain_rpc: RpcCall) -> None:
    """An EIP-1559 transfer is type 2, succeeds, costs 21,000 gas and makes no contract."""
    sent = chain_rpc("eth_sendRawTransaction", transfer(chain_rpc))["result"]
    receipt = mined(chain_rpc, sent)
    transaction = chain_rpc("eth_getTransactionByHash", sent)["result"]
    for form in (transaction, receipt):
        assert (form["type"], form["from"], form["to"]) == ("0x2", SENDER.address.lower(), OTHER)
    assert (transaction["chainId"], transaction["value"]) == ("0x7a69", "0x1")
    assert (receipt["status"], receipt["gasUsed"], receipt["logs"]) == ("0x1", "0x5208", [])
    assert receipt["contractAddress"] is None
    assert int(receipt["effectiveGasPrice"], 16) > 0


async def test_logs_are_found_by_range_address_and_topics(chain_url: str, chain_rpc: RpcCall) -> None:
    """Ranges of blocks, an address, and topics with wildcards select events."""
    registry, other = [await deploy_registry(chain_url, DEVELOPMENT_KEYS[0]) for _ in range(2)]
    hashes = ["0x" + f"{n:02x}" * 32 for n in (0x31, 0x32)]
    receipts = [await register(chain_url, registry, DEVELOPMENT_KEYS[0], item, "ipfs://a") for item in hashes]
    await register(chain_url, other, DEVELOPMENT_KEYS[0], hashes[0], "ipfs://b")
    first, last = (hex(receipt.block_number) for receipt in receipts)

    def found(**criteria: Any) -> list[str]:
        return [log["topics"][1] for log in chain_rpc("eth_getLogs", criteria)["result"]]

    whole = {"fromBlock": first, "toBlock": "latest"}
    assert found(address=registry, **whole) == hashes
    assert found(**whole) == [*hashes, hashes[0]]
    assert found(address=registry, fromBlock=first, toBlock=first) == hashes[:1]
    assert found(address=registry, fromBlock=last, toBlock=last) == hashes[1:]
    assert found(address=registry, topics=[None, hashes[1]], **whole) == hashes[1:]
    assert found(address=registry, topics=[hashes[0]], **whole) == []


async def test_a_revert_is_code_3_with_its_data(chain_url: str, chain_rpc: RpcCall) -> None:
    """eth_call and eth_estimateGas give the reason in words and the thrown bytes as data."""
    registry = await deploy_registry(chain_url, DEVELOPMENT_KEYS[0])
    revoke_nothing = {"from": ACCOUNT, "to": registry, "data": "0x" + "b75c7dc6" + "00" * 32}
    for method in ("eth_call", "eth_estimateGas"):
        error = chain_rpc(method, revoke_nothing)["error"]
        assert error["code"] == 3
        assert "execution reverted: not the creator" in error["message"]
        assert error["data"].startswith("0x08c379a0")


def test_an_unknown_block_or_transaction_is_null(chain_rpc: RpcCall) -> None:
    """An unknown block, transaction or receipt is null, not an error."""
    nothing = "0x" + "ee" * 32
    assert chain_rpc("eth_getBlockByHash", nothing, False)["result"] is None
    assert chain_rpc("eth_getBlockByNumber", "0xffffffff", False)["result"] is None
    assert chain_rpc("eth_getTransactionByHash", nothing)["result"] is None
    assert chain_rpc("eth_getTransactionReceipt", nothing)["result"] is None


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_getTransactionCount", []),
        ("eth_getTransactionCount", [ACCOUNT, "newest"]),
        ("eth_call", ["0x", "latest"]),
        ("eth_call", [{"to": ACCOUNT, "data": "0x1"}, "latest"]),
    ],
)
def test_a_bad_parameter_is_invalid_params(chain_rpc: RpcCall, method: str, params: list[Any]) -> None:
    """A bad parameter gets -32602, and nothing happens."""
    assert chain_rpc(method, *params)["error"]["code"] == -32602


@pytest.mark.parametrize("method", ["eth_call", "eth_estimateGas"])
def test_a_call_that_cannot_begin_is_refused(py_evm_rpc: RpcCall, method: str) -> None:
    """A call from an account without the call's value gets -32000 and the reason."""
    error = py_evm_rpc(method, {"from": "0x" + "12" * 20, "to": ACCOUNT, "value": "0x1"}, "latest")["error"]
    assert error["code"] == -32000
    assert "balance" in error["message"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nonce": 0}, "nonce too low"),
        ({"nonce": 0xFFFF}, "nonce"),
        ({"value": 10**30}, "balance"),
        ({"gas": 1}, "gas"),
        ({"chainId": 1}, "invalid chain id"),
        ({"maxFeePerGas": 0, "maxPriorityFeePerGas": 0}, "gas"),
    ],
)
def test_a_transaction_that_cannot_be_mined_is_refused(
    py_evm_rpc: RpcCall, fields: dict[str, int], message: str
) -> None:
    """A transaction that cannot be mined is refused with the reason, and no block is mined."""
    assert "result" in py_evm_rpc("eth_sendRawTransaction", transfer(py_evm_rpc))
    height = py_evm_rpc("eth_blockNumber")
    error = py_evm_rpc("eth_sendRawTransaction", transfer(py_evm_rpc, **fields))["error"]
    assert error["code"] == -32000
    assert message in error["message"].lower()
    assert py_evm_rpc("eth_blockNumber") == height
    assert "result" in py_evm_rpc("eth_sendRawTransaction", transfer(py_evm_rpc))


@pytest.mark.parametrize("raw", ["0x", "0x00", "0x02c0", "0xc0"])
def test_bytes_that_are_no_transaction_are_refused(py_evm_rpc: RpcCall, raw: str) -> None:
    """Bytes that are no transaction get a clear refusal, not an internal error."""
    error = py_evm_rpc("eth_sendRawTransaction", raw)["error"]
    assert (error["code"], error["message"].startswith("invalid transaction")) == (-32000, True)


async def test_batches_are_answered_over_http(chain_url: str) -> None:
    """An array of calls gets an array of replies, the failed calls included."""
    calls = [
        {"jsonrpc": "2.0", "id": index, "method": method, "params": []}
        for index, method in enumerate(["eth_chainId", "no_suchMethod", "eth_chainId"])
    ]
    async with httpx.AsyncClient() as client:
        replies = (await client.post(chain_url, json=calls)).json()
    by_id = {reply["id"]: reply for reply in replies}
    assert (by_id[0]["result"], by_id[1]["error"]["code"], by_id[2]["result"]) == ("0x7a69", -32601, "0x7a69")


async def test_only_json_of_bounded_size_is_taken(py_evm_chain: str) -> None:
    """The chain takes bounded JSON only: another type gets 415, over 5 MiB 413, malformed -32700, no call -32600, a GET
    405.
    """
    async with httpx.AsyncClient() as client:
        typed = {"content-type": "application/json"}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"})
        assert (await client.post(py_evm_chain, content=body)).status_code == 415
        assert (await client.post(py_evm_chain, content=" " * 6_000_000, headers=typed)).status_code == 413
        assert (await client.post(py_evm_chain, content="{", headers=typed)).json()["error"]["code"] == -32700
        assert (await client.post(py_evm_chain, content="1", headers=typed)).json()["error"]["code"] == -32600
        assert (await client.get(py_evm_chain)).status_code == 405
