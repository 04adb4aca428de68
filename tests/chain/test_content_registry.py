"""ContentRegistry in both layouts, on every available chain."""

import secrets
from collections.abc import Callable
from typing import Any, get_args

import pytest
from eth_account import Account

from iidq.embedded.contracts import Layout
from iidq.embedded.demo_registry import deploy_registry, register, revoke, update_manifest
from iidq.errors import RpcFault
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.ethereum.transactions import TransactionFault

RpcCall = Callable[..., Any]
ENTRIES = "0x267b6922"
REGISTERED = "0xd9807b1b3c9429c865f0beb8aabf1628bedeb04a0d6f3f8dc2b42f5989816ecb"
CREATOR = DEVELOPMENT_KEYS[1]
STRANGER = DEVELOPMENT_KEYS[2]

layouts = pytest.mark.parametrize("layout", get_args(Layout))


def entry(rpc: RpcCall, registry: str, content_hash: str) -> list[bytes]:
    """Return the words of the raw reply to ``entries``."""
    reply = rpc("eth_call", {"to": registry, "data": ENTRIES + content_hash[2:]}, "latest")
    raw = bytes.fromhex(reply["result"][2:])
    return [raw[i : i + 32] for i in range(0, len(raw), 32)]


def numbers(words: list[bytes]) -> list[int]:
    return [int.from_bytes(word, "big") for word in words]


def new_hash() -> str:
    return "0x" + secrets.token_hex(32)


@layouts
async def test_an_entry_tells_its_layout_by_the_third_word(chain_url: str, chain_rpc: RpcCall, layout: Layout) -> None:
    """The raw reply of ``entries`` has creator, time and URI at the layout's places."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    content_hash, uri = new_hash(), "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o"

    receipt = await register(chain_url, registry, CREATOR, content_hash, uri)

    words = entry(chain_rpc, registry, content_hash)
    creator = int(Account.from_key(CREATOR).address, 16)
    padded = uri.encode().ljust(64, b"\0")
    if layout == "old":
        assert numbers(words[:5]) == [creator, int(content_hash, 16), 0x80, receipt.timestamp, len(uri)]
        assert b"".join(words[5:]) == padded
    else:
        assert numbers(words[:4]) == [creator, receipt.timestamp, 0x60, len(uri)]
        assert b"".join(words[4:]) == padded


@layouts
async def test_an_unregistered_hash_reads_as_zeros(chain_url: str, chain_rpc: RpcCall, layout: Layout) -> None:
    """An unregistered hash reads as zero address, zero time and empty URI."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    expected = [0, 0, 0x80, 0, 0] if layout == "old" else [0, 0, 0x60, 0]
    assert numbers(entry(chain_rpc, registry, new_hash())) == expected


@layouts
async def test_a_registration_leaves_its_event(chain_url: str, chain_rpc: RpcCall, layout: Layout) -> None:
    """ContentRegistered has hash and creator as topics, URI and block time as data, and the hash of its transaction."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    content_hash = new_hash()
    receipt = await register(chain_url, registry, CREATOR, content_hash, "https://example.org/m.json")

    (log,) = chain_rpc(
        "eth_getLogs",
        {
            "address": registry,
            "topics": [REGISTERED, content_hash],
            "fromBlock": hex(receipt.block_number),
            "toBlock": hex(receipt.block_number),
        },
    )["result"]
    assert log["topics"] == [REGISTERED, content_hash, "0x" + Account.from_key(CREATOR).address[2:].lower().zfill(64)]
    assert log["transactionHash"] == receipt.tx_hash
    data = bytes.fromhex(log["data"][2:])
    assert numbers([data[:32], data[32:64], data[64:96]]) == [0x40, receipt.timestamp, 26]
    assert data[96:].rstrip(b"\0") == b"https://example.org/m.json"


@layouts
async def test_registering_twice_reverts(chain_url: str, chain_rpc: RpcCall, layout: Layout) -> None:
    """A registered hash cannot be registered again, by any account, and the first entry does not change."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    content_hash = new_hash()
    await register(chain_url, registry, CREATOR, content_hash, "ipfs://first")
    before = entry(chain_rpc, registry, content_hash)
    for key in (CREATOR, STRANGER):
        with pytest.raises(TransactionFault, match="already registered"):
            await register(chain_url, registry, key, content_hash, "ipfs://second")
    assert entry(chain_rpc, registry, content_hash) == before


@layouts
async def test_revoking_empties_the_uri_alone(chain_url: str, chain_rpc: RpcCall, layout: Layout) -> None:
    """A revocation empties the URI and keeps creator and time of registration."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    content_hash = new_hash()
    receipt = await register(chain_url, registry, CREATOR, content_hash, "ipfs://" + "x" * 60)
    chain_rpc("evm_increaseTime", 60)

    revoked = await revoke(chain_url, registry, CREATOR, content_hash)

    assert revoked.timestamp > receipt.timestamp
    creator = int(Account.from_key(CREATOR).address, 16)
    expected = (
        [creator, int(content_hash, 16), 0x80, receipt.timestamp, 0]
        if layout == "old"
        else [creator, receipt.timestamp, 0x60, 0]
    )
    assert numbers(entry(chain_rpc, registry, content_hash)) == expected


@layouts
async def test_only_the_creator_changes_an_entry(chain_url: str, chain_rpc: RpcCall, layout: Layout) -> None:
    """The creator's update changes the URI and not the time; a stranger's update or revocation reverts."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    content_hash = new_hash()
    receipt = await register(chain_url, registry, CREATOR, content_hash, "ipfs://first")
    with pytest.raises(TransactionFault, match="not the creator"):
        await update_manifest(chain_url, registry, STRANGER, content_hash, "ipfs://stolen")
    with pytest.raises(TransactionFault, match="not the creator"):
        await revoke(chain_url, registry, STRANGER, content_hash)

    await update_manifest(chain_url, registry, CREATOR, content_hash, "ipfs://other")

    words = entry(chain_rpc, registry, content_hash)
    assert words[-1].rstrip(b"\0") == b"ipfs://other"
    assert receipt.timestamp in numbers(words)


async def test_an_endpoint_that_is_away_is_told(unused_tcp_port: int) -> None:
    """An unreachable endpoint raises RpcFault with a clear message."""
    with pytest.raises(RpcFault, match="could not be reached"):
        await deploy_registry(f"http://127.0.0.1:{unused_tcp_port}", CREATOR)
