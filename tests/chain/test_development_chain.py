"""The development chain's process, its clock, and how it fills blocks."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from iidq.embedded.development_chain.chain_process import ChainNotStarted, DevelopmentChain

ACCOUNT = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"
OTHER = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
YEAR_2020 = 1_577_836_800


@pytest.fixture
def chain() -> Iterator[DevelopmentChain]:
    """A chain of one's own that begins in 2020: for tests that set its clock."""
    with DevelopmentChain(chain_id=777, genesis_timestamp=YEAR_2020) as running:
        yield running


def rpc(chain: DevelopmentChain, method: str, *params: Any) -> Any:
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    reply = httpx.post(chain.url, json=call, timeout=30, verify=False)  # noqa: S501 - plain HTTP, and so faster
    body = reply.json()
    return body["result"] if "result" in body else body["error"]


def newest(chain: DevelopmentChain) -> dict[str, Any]:
    block: dict[str, Any] = rpc(chain, "eth_getBlockByNumber", "latest", False)
    return block


def test_blocks_take_the_times_they_are_given(chain: DevelopmentChain) -> None:
    """A set time is the next block's to the second, may repeat, never goes back, and the clock runs on from it."""
    assert rpc(chain, "eth_chainId") == hex(777)
    assert int(newest(chain)["timestamp"], 16) == YEAR_2020
    for _ in range(2):
        rpc(chain, "evm_setNextBlockTimestamp", YEAR_2020 + 100)
        rpc(chain, "evm_mine")
        assert int(newest(chain)["timestamp"], 16) == YEAR_2020 + 100
    assert rpc(chain, "evm_setNextBlockTimestamp", YEAR_2020)["code"] == -32602
    rpc(chain, "evm_increaseTime", 1000)
    rpc(chain, "evm_mine")
    assert YEAR_2020 + 1100 <= int(newest(chain)["timestamp"], 16) < YEAR_2020 + 1200
    rpc(chain, "evm_mine", {"blocks": 3, "timestamp": YEAR_2020 + 5000})
    assert (newest(chain)["number"], int(newest(chain)["timestamp"], 16)) == ("0x6", YEAR_2020 + 5000)


def test_one_block_holds_several_transactions(chain: DevelopmentChain) -> None:
    """Without automine transactions wait, visible and counted, until one block takes them all in order."""
    rpc(chain, "evm_setAutomine", False)
    transfer = {"from": ACCOUNT, "to": OTHER, "value": "0x1", "gas": "0x5208"}
    sent = [rpc(chain, "eth_sendTransaction", transfer) for _ in range(3)]
    assert rpc(chain, "eth_getTransactionCount", ACCOUNT, "latest") == "0x0"
    assert rpc(chain, "eth_getTransactionCount", ACCOUNT, "pending") == "0x3"
    assert rpc(chain, "eth_getTransactionByHash", sent[0])["blockHash"] is None
    assert rpc(chain, "eth_getTransactionReceipt", sent[0]) is None

    rpc(chain, "evm_mine")

    assert newest(chain)["transactions"] == sent
    receipts = [rpc(chain, "eth_getTransactionReceipt", item) for item in sent]
    assert [receipt["transactionIndex"] for receipt in receipts] == ["0x0", "0x1", "0x2"]
    assert [int(receipt["cumulativeGasUsed"], 16) for receipt in receipts] == [21000, 42000, 63000]
    assert [int(receipt["gasUsed"], 16) for receipt in receipts] == [21000] * 3


def test_older_state_can_be_read(chain: DevelopmentChain) -> None:
    """A read at a block, by number or by hash (EIP-1898), sees what was so then."""
    genesis = newest(chain)
    rpc(chain, "eth_sendTransaction", {"from": ACCOUNT, "to": "0x" + "77" * 20, "value": "0x9"})
    richer = "0x" + "77" * 20
    assert rpc(chain, "eth_getBalance", richer, "latest") == "0x9"
    assert rpc(chain, "eth_getBalance", richer, "0x0") == "0x0"
    assert rpc(chain, "eth_getBalance", richer, {"blockHash": genesis["hash"]}) == "0x0"
    assert rpc(chain, "eth_getBalance", richer, {"blockNumber": "0x1"}) == "0x9"
    assert rpc(chain, "eth_getBalance", richer, "0x2")["message"] == "header not found"


def test_a_stopped_chain_starts_anew() -> None:
    """After a stop nothing answers and there is no URL; a new start gives an empty chain."""
    chain = DevelopmentChain()
    chain.start()
    url = chain.url
    rpc(chain, "evm_mine")
    chain.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.post(url, json={})
    with pytest.raises(ChainNotStarted):
        _ = chain.url
    with chain:
        assert rpc(chain, "eth_blockNumber") == "0x0"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_silently(how: signal.Signals) -> None:
    """It has printed its URL and nothing else, and leaves with code 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "iidq.embedded.development_chain.chain_process", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    url = process.stdout.readline().decode().strip()
    with httpx.Client() as client:  # an open connection does not hold it up
        client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"})
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"", b"")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_it_dies_with_its_parent() -> None:
    """A parent killed with -9 leaves no chain behind."""
    script = (
        "import sys, signal\n"
        "from iidq.embedded.development_chain.chain_process import DevelopmentChain\n"
        "chain = DevelopmentChain(); chain.start()\n"
        "print(chain.pid, flush=True)\n"
        "signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    handle = os.pidfd_open(int(parent.stdout.readline()))
    try:
        parent.kill()
        parent.communicate(timeout=30)
        ended, _, _ = select.select([handle], [], [], 30)
        assert ended == [handle]
    finally:
        os.close(handle)


def test_a_port_in_use_is_told(chain: DevelopmentChain) -> None:
    """The start fails with what the process said, and leaves nothing running."""
    second = DevelopmentChain(port=int(chain.url.rpartition(":")[2]))
    with pytest.raises(ChainNotStarted, match="another process listens"):
        second.start()
    assert second.pid is None
