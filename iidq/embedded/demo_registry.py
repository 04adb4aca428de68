"""Deploy and use the ContentRegistry over any JSON-RPC endpoint, for the demo and tests.

Transactions are signed here, usually with the keys of :mod:`iidq.provenance.ethereum.development_accounts`. Send the
transactions of one account one after another: each nonce is read from the chain. Every function raises
:class:`~iidq.provenance.ethereum.transactions.TransactionFault` for a refused or reverted transaction, and
:class:`~iidq.errors.RpcFault` without a usable answer.
"""

from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_typing import HexStr
from web3 import AsyncWeb3

from iidq.embedded.contracts import Layout, compiled_contract
from iidq.provenance.ethereum.transactions import Mined, ask, chain_at, price, send, sign, wait_until_mined

_RECEIPT_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class RegistrationReceipt:
    """The place of a mined transaction."""

    tx_hash: str
    """Hash of the transaction."""
    block_number: int
    """Height of the block."""
    timestamp: int
    """Time of the block, in Unix seconds."""


async def deploy_registry(rpc_url: str, key: str, layout: Layout = "new") -> str:
    """Deploy the registry with this layout; return its EIP-55 address."""
    return await deploy(rpc_url, key, compiled_contract(layout).bytecode)


async def register(rpc_url: str, registry: str, key: str, content_hash: str, manifest_uri: str) -> RegistrationReceipt:
    """Register ``content_hash`` (0x and 64 hex digits) for the key's owner."""
    return await _change(rpc_url, registry, key, "register", content_hash, manifest_uri)


async def update_manifest(
    rpc_url: str, registry: str, key: str, content_hash: str, manifest_uri: str
) -> RegistrationReceipt:
    """Point a registered hash to another manifest, with the creator's key."""
    return await _change(rpc_url, registry, key, "updateManifest", content_hash, manifest_uri)


async def revoke(rpc_url: str, registry: str, key: str, content_hash: str) -> RegistrationReceipt:
    """Empty a registered hash's manifest URI, with the creator's key."""
    return await _change(rpc_url, registry, key, "revoke", content_hash)


async def deploy(rpc_url: str, key: str, code: bytes) -> str:
    """Deploy any contract; return its EIP-55 address."""
    async with chain_at(rpc_url) as chain:
        mined = await _transact(chain, key, None, HexStr("0x" + code.hex()))
    assert mined.contract is not None
    return mined.contract


async def execute(rpc_url: str, key: str, contract: str, call: bytes) -> Mined:
    """Call any contract in a transaction."""
    async with chain_at(rpc_url) as chain:
        return await _transact(chain, key, contract, HexStr("0x" + call.hex()))


def encode_call(chain: AsyncWeb3[Any], function: str, *arguments: str) -> HexStr:
    """Return the call data of one of the registry's functions in hex; both layouts have the same."""
    data: HexStr = chain.eth.contract(abi=compiled_contract("new").abi).encode_abi(function, arguments)
    return data


async def _change(rpc_url: str, registry: str, key: str, function: str, *arguments: str) -> RegistrationReceipt:
    async with chain_at(rpc_url) as chain:
        mined = await _transact(chain, key, registry, encode_call(chain, function, *arguments))
        block = await ask(chain.eth.get_block(mined.block_hash))
    return RegistrationReceipt(mined.hash, mined.block_number, block["timestamp"])


async def _transact(chain: AsyncWeb3[Any], key: str, to: str | None, data: HexStr) -> Mined:
    signed = sign(await price(chain, sender=Account.from_key(key).address, to=to, data=data), key)
    await send(chain, signed)
    return await wait_until_mined(chain, HexStr(signed.hash.to_0x_hex()), wait_seconds=_RECEIPT_TIMEOUT_SECONDS)
