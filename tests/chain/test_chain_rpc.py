"""What clients read from a chain: the same from ours as from anvil, where that is at hand."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from iidq.embedded.demo_registry import deploy_registry, register
from iidq.embedded.development_chain.accounts import DEVELOPMENT_KEYS

RpcCall = Callable[..., Any]
ACCOUNT = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"
OTHER = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
QUANTITY = r"0x(0|[1-9a-f][0-9a-f]*)"


def mined(rpc: RpcCall, tx_hash: str) -> dict[str, Any]:
    """The transaction's receipt; anvil replies before it has mined."""
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
        ("eth_gasPrice", []),
        ("eth_maxPriorityFeePerGas", []),
        ("eth_getBalance", [ACCOUNT, "latest"]),
        ("eth_getTransactionCount", [ACCOUNT, "pending"]),
        ("eth_estimateGas", [{"from": ACCOUNT, "to": OTHER, "value": "0x1"}]),
    ],
)
def test_quantities_have_no_leading_zeros(chain_rpc: RpcCall, method: str, params: list[Any]) -> None:
    """Every number is 0x and hex digits, the first of them not 0 unless it is the only one."""
    assert re.fullmatch(QUANTITY, chain_rpc(method, *params)["result"])


def test_who_is_there(chain_rpc: RpcCall) -> None:
    """Chain id 31337 in both forms, and the well-known accounts, funded."""
    assert chain_rpc("eth_chainId")["result"] == "0x7a69"
    assert chain_rpc("net_version")["result"] == "31337"
    assert chain_rpc("eth_accounts")["result"][:2] == [ACCOUNT, OTHER]
    assert int(chain_rpc("eth_getBalance", OTHER, "latest")["result"], 16) > 10**18


@pytest.mark.parametrize("tag", ["latest", "safe", "finalized", "pending", "earliest", "0x0", None])
def test_every_block_tag_is_understood(chain_rpc: RpcCall, tag: str | None) -> None:
    """Reads of state and of blocks take every tag of the specification."""
    assert chain_rpc("eth_getCode", ACCOUNT, tag or "latest")["result"] == "0x"
    if tag is not None:
        assert chain_rpc("eth_getBlockByNumber", tag, False)["result"]["timestamp"].startswith("0x")


def test_a_block_looks_the_same_by_number_and_by_hash(chain_rpc: RpcCall) -> None:
    """Both ways give one block, with its transactions as hashes or whole, in the form that clients parse."""
    sent = chain_rpc("eth_sendTransaction", {"from": ACCOUNT, "to": OTHER, "value": "0x1"})["result"]
    receipt = mined(chain_rpc, sent)
    short = chain_rpc("eth_getBlockByNumber", receipt["blockNumber"], False)["result"]
    whole = chain_rpc("eth_getBlockByHash", receipt["blockHash"], True)["result"]

    assert short["transactions"] == [sent]
    assert {**whole, "transactions": short["transactions"]} == short
    assert whole["transactions"] == [chain_rpc("eth_getTransactionByHash", sent)["result"]]
    assert short["hash"] == receipt["blockHash"]
    assert set(short) >= {
        "baseFeePerGas", "difficulty", "extraData", "gasLimit", "gasUsed", "hash", "logsBloom", "miner", "mixHash",
        "nonce", "number", "parentHash", "receiptsRoot", "sha3Uncles", "size", "stateRoot", "timestamp",
        "transactions", "transactionsRoot", "uncles",
    }  # fmt: skip
    lengths = {"logsBloom": 256, "nonce": 8, "miner": 20, "hash": 32, "stateRoot": 32, "sha3Uncles": 32}
    assert {name: len(short[name][2:]) // 2 for name in lengths} == lengths


def test_a_transaction_and_its_receipt_have_their_fields(chain_rpc: RpcCall) -> None:
    """An EIP-1559 transfer of an unlocked account is type 2, succeeds, and is charged what the receipt says."""
    before = int(chain_rpc("eth_getBalance", ACCOUNT, "latest")["result"], 16)
    sent = chain_rpc("eth_sendTransaction", {"from": ACCOUNT, "to": OTHER, "value": "0x5", "gas": "0x5208"})["result"]
    receipt = mined(chain_rpc, sent)
    transaction = chain_rpc("eth_getTransactionByHash", sent)["result"]

    assert (transaction["type"], transaction["from"], transaction["to"], transaction["value"]) == (
        "0x2",
        ACCOUNT,
        OTHER,
        "0x5",
    )
    assert set(transaction) >= {
        "blockHash", "blockNumber", "chainId", "accessList", "gas", "gasPrice", "hash", "input", "maxFeePerGas",
        "maxPriorityFeePerGas", "nonce", "r", "s", "transactionIndex", "v", "yParity",
    }  # fmt: skip
    assert (receipt["status"], receipt["gasUsed"], receipt["logs"]) == ("0x1", "0x5208", [])
    assert receipt["contractAddress"] is None
    spent = before - int(chain_rpc("eth_getBalance", ACCOUNT, "latest")["result"], 16)
    assert spent == 5 + int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)


async def test_logs_are_found_by_every_kind_of_filter(chain_url: str, chain_rpc: RpcCall) -> None:
    """Ranges, one or several addresses, topics with wildcards and alternatives, and one block's hash select events."""
    registry, other = [await deploy_registry(chain_url, DEVELOPMENT_KEYS[0]) for _ in range(2)]
    hashes = ["0x" + f"{n:02x}" * 32 for n in (0x31, 0x32)]
    receipts = [await register(chain_url, registry, DEVELOPMENT_KEYS[0], item, "ipfs://a") for item in hashes]
    await register(chain_url, other, DEVELOPMENT_KEYS[0], hashes[0], "ipfs://b")
    first, last = (hex(receipt.block_number) for receipt in receipts)

    def found(**criteria: Any) -> list[str]:
        return [log["topics"][1] for log in chain_rpc("eth_getLogs", criteria)["result"]]

    whole = {"fromBlock": first, "toBlock": "latest"}
    assert found(address=registry, **whole) == hashes
    assert found(address=[registry, other], **whole) == [*hashes, hashes[0]]
    assert found(address=registry, fromBlock=first, toBlock=first) == hashes[:1]
    assert found(address=registry, fromBlock=last, toBlock=last) == hashes[1:]
    assert found(address=registry, topics=[None, hashes[1]], **whole) == hashes[1:]
    assert found(address=registry, topics=[[], hashes], **whole) == hashes
    assert found(address=registry, topics=[hashes[0]], **whole) == []
    block = chain_rpc("eth_getBlockByNumber", last, False)["result"]
    (log,) = chain_rpc("eth_getLogs", {"blockHash": block["hash"]})["result"]
    assert (log["transactionHash"], log["removed"], log["logIndex"]) == (receipts[1].tx_hash, False, "0x0")
    assert chain_rpc("eth_getLogs", {"blockHash": "0x" + "11" * 32})["error"]


async def test_more_topics_than_an_event_has_match_nothing(development_chain: str, development_rpc: RpcCall) -> None:
    """As in geth: a wildcard stands for a topic that is there."""
    registry = await deploy_registry(development_chain, DEVELOPMENT_KEYS[0])
    receipt = await register(development_chain, registry, DEVELOPMENT_KEYS[0], "0x" + "33" * 32, "ipfs://a")
    for count, found in ((3, 1), (4, 0)):
        criteria = {"fromBlock": hex(receipt.block_number), "topics": [None] * count}
        assert len(development_rpc("eth_getLogs", criteria)["result"]) == found


async def test_a_revert_is_code_3_with_its_data(chain_url: str, chain_rpc: RpcCall) -> None:
    """eth_call and eth_estimateGas give the reason in words and the thrown bytes as data."""
    registry = await deploy_registry(chain_url, DEVELOPMENT_KEYS[0])
    revoke_nothing = {"from": ACCOUNT, "to": registry, "data": "0x" + "b75c7dc6" + "00" * 32}
    for method in ("eth_call", "eth_estimateGas"):
        error = chain_rpc(method, revoke_nothing)["error"]
        assert error["code"] == 3
        assert "execution reverted: not the creator" in error["message"]
        assert error["data"].startswith("0x08c379a0")


def test_what_is_not_there_is_null(chain_rpc: RpcCall) -> None:
    """An unknown block, transaction or receipt is null, not an error."""
    nothing = "0x" + "ee" * 32
    assert chain_rpc("eth_getBlockByHash", nothing, False)["result"] is None
    assert chain_rpc("eth_getBlockByNumber", "0xffffffff", False)["result"] is None
    assert chain_rpc("eth_getTransactionByHash", nothing)["result"] is None
    assert chain_rpc("eth_getTransactionReceipt", nothing)["result"] is None


def test_storage_is_read_by_slot(chain_rpc: RpcCall) -> None:
    """An empty slot is 32 zero bytes, named by a number or by a whole word."""
    assert chain_rpc("eth_getStorageAt", ACCOUNT, "0x0", "latest")["result"] == "0x" + "00" * 32
    assert chain_rpc("eth_getStorageAt", ACCOUNT, "0x" + "00" * 32, "latest")["result"] == "0x" + "00" * 32


def test_the_fee_history_has_one_base_fee_more_than_blocks(chain_rpc: RpcCall) -> None:
    """The last base fee is the next block's; rewards come for the percentiles asked for."""
    chain_rpc("evm_mine")
    history = chain_rpc("eth_feeHistory", "0x2", "latest", [50])["result"]
    assert len(history["baseFeePerGas"]) == len(history["gasUsedRatio"]) + 1 == len(history["reward"]) + 1 == 3


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_getBalance", []),
        ("eth_getBalance", ["0x01", "latest"]),
        ("eth_getBalance", [ACCOUNT, "newest"]),
        ("eth_getBlockByNumber", ["latest", "yes"]),
        ("eth_call", ["0x", "latest"]),
        ("eth_call", [{"to": ACCOUNT, "data": "0x1"}, "latest"]),
        ("eth_getLogs", [{"address": "0x1"}]),
        ("eth_getTransactionReceipt", ["0x1"]),
    ],
)
def test_a_bad_parameter_is_invalid_params(chain_rpc: RpcCall, method: str, params: list[Any]) -> None:
    """Each gets -32602, and nothing happens."""
    assert chain_rpc(method, *params)["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_getBlockByNumber", ["0x01", False]),
        ("eth_getBlockByNumber", ["0x", False]),
        ("eth_getBlockByNumber", [{"blockHash": "0x" + "00" * 32, "blockNumber": "0x0"}, False]),
        ("eth_call", [{"to": ACCOUNT, "data": "0x01", "input": "0x02"}]),
        ("eth_call", [{"to": ACCOUNT}, "latest", {}]),
        ("eth_getLogs", [{"fromBlock": "0x2", "toBlock": "0x1"}]),
        ("eth_getLogs", [{"topics": [None] * 5}]),
        ("evm_mine", ["soon"]),
    ],
)
def test_ours_is_as_strict_as_geth(development_rpc: RpcCall, method: str, params: list[Any]) -> None:
    """What geth refuses, and some development chains let pass, is refused: clients get to know it here."""
    assert development_rpc(method, *params)["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nonce": "0x0"}, "nonce too low"),
        ({"nonce": "0xffff"}, "nonce too high"),
        ({"value": hex(10**30)}, "insufficient funds"),
        ({"gas": "0x1"}, "intrinsic gas too low"),
        ({"gas": "0xfffffff"}, "exceeds block gas limit"),
        ({"maxFeePerGas": "0x0", "maxPriorityFeePerGas": "0x0"}, "max fee per gas less than block base fee"),
        ({"from": "0x" + "12" * 20}, "unknown account"),
    ],
)
def test_a_transaction_that_cannot_be_mined_is_refused(
    development_rpc: RpcCall, fields: dict[str, str], message: str
) -> None:
    """The reply says why, in geth's words, and no block is mined."""
    development_rpc("eth_sendTransaction", {"from": OTHER, "to": ACCOUNT, "value": "0x1"})
    height = development_rpc("eth_blockNumber")
    request = {"from": OTHER, "to": ACCOUNT, "value": "0x1", "gas": "0x5208", **fields}
    error = development_rpc("eth_sendTransaction", request)["error"]
    assert error["code"] == -32000
    assert message in error["message"]
    assert development_rpc("eth_blockNumber") == height


@pytest.mark.parametrize("raw", ["0x", "0x00", "0x02c0", "0xc0"])
def test_bytes_that_are_no_transaction_are_refused(development_rpc: RpcCall, raw: str) -> None:
    """A clear refusal, not an internal error."""
    error = development_rpc("eth_sendRawTransaction", raw)["error"]
    assert (error["code"], error["message"].startswith("invalid transaction")) == (-32000, True)


async def test_batches_are_answered_over_http(chain_url: str) -> None:
    """An array of calls gets an array of replies, the failed ones among them."""
    calls = [
        {"jsonrpc": "2.0", "id": index, "method": method, "params": []}
        for index, method in enumerate(["eth_chainId", "no_suchMethod", "net_version"])
    ]
    async with httpx.AsyncClient() as client:
        replies = (await client.post(chain_url, json=calls)).json()
    by_id = {reply["id"]: reply for reply in replies}
    assert (by_id[0]["result"], by_id[1]["error"]["code"], by_id[2]["result"]) == ("0x7a69", -32601, "31337")


async def test_only_json_of_bounded_size_is_taken(development_chain: str) -> None:
    """Not JSON by its type 415, over 5 MiB 413, malformed -32700, a GET 405."""
    async with httpx.AsyncClient() as client:
        typed = {"content-type": "application/json"}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"})
        assert (await client.post(development_chain, content=body)).status_code == 415
        assert (await client.post(development_chain, content=" " * 6_000_000, headers=typed)).status_code == 413
        assert (await client.post(development_chain, content="{", headers=typed)).json()["error"]["code"] == -32700
        assert (await client.get(development_chain)).status_code == 405
