"""Deploy and use our ContentRegistry over any JSON-RPC endpoint: the development chain, anvil, geth.

For the demo and tests. Transactions are signed here; the keys are usually of :mod:`iidq.embedded.accounts`. One
sender's transactions must follow one another: each takes its nonce from the chain. Every function raises
:class:`~iidq.provenance.transactions.TransactionFault` if the endpoint refuses or the transaction reverts.
"""

from dataclasses import dataclass

from iidq.embedded.contracts import Layout, compiled_contract
from iidq.provenance.registry import encode_register_call
from iidq.provenance.transactions import ChainClient, Mined, price, send, sign, wait_until_mined

_RECEIPT_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class RegistrationReceipt:
    """Where a transaction stands on the chain; ``timestamp`` is its block's, in Unix seconds."""

    tx_hash: str
    block_number: int
    timestamp: int


async def deploy_registry(rpc_url: str, key: str, layout: Layout = "new") -> str:
    """Deploy the registry with this layout; return its EIP-55 address."""
    return await deploy(rpc_url, key, compiled_contract(layout).bytecode)


async def register(rpc_url: str, registry: str, key: str, content_hash: str, manifest_uri: str) -> RegistrationReceipt:
    """Register ``content_hash`` (0x and 64 hex digits) for the key's owner."""
    return await _change(rpc_url, registry, key, encode_register_call(content_hash, manifest_uri))


async def update_manifest(
    rpc_url: str, registry: str, key: str, content_hash: str, manifest_uri: str
) -> RegistrationReceipt:
    """Point a registered hash to another manifest; only its creator's key can."""
    call = _encoded("updateManifest(bytes32,string)", content_hash, manifest_uri)
    return await _change(rpc_url, registry, key, call)


async def revoke(rpc_url: str, registry: str, key: str, content_hash: str) -> RegistrationReceipt:
    """Empty a registered hash's manifest URI; only its creator's key can."""
    return await _change(rpc_url, registry, key, _encoded("revoke(bytes32)", content_hash))


async def deploy(rpc_url: str, key: str, code: bytes) -> str:
    """Deploy any contract; return its EIP-55 address."""
    async with ChainClient(rpc_url) as chain:
        mined = await _transact(chain, key, None, code)
    assert mined.contract is not None
    return mined.contract


async def execute(rpc_url: str, key: str, contract: str, call: bytes) -> Mined:
    """Call any contract in a transaction."""
    async with ChainClient(rpc_url) as chain:
        return await _transact(chain, key, contract, call)


def _encoded(function: str, content_hash: str, *texts: str) -> bytes:
    from eth_abi.abi import encode
    from eth_utils.crypto import keccak

    types = function[function.index("(") + 1 : -1].split(",")
    return keccak(text=function)[:4] + encode(types, [bytes.fromhex(content_hash.removeprefix("0x")), *texts])


async def _change(rpc_url: str, registry: str, key: str, call: bytes) -> RegistrationReceipt:
    async with ChainClient(rpc_url) as chain:
        mined = await _transact(chain, key, registry, call)
        block = await chain.call("eth_getBlockByHash", mined.block_hash, False)
    return RegistrationReceipt(mined.hash, mined.block_number, int(block["timestamp"], 16))


async def _transact(chain: ChainClient, key: str, to: str | None, data: bytes) -> Mined:
    from eth_account import Account

    signed = sign(await price(chain, sender=Account.from_key(key).address, to=to, data=data), key)
    await send(chain, signed)
    return await wait_until_mined(chain, signed.hash, wait_seconds=_RECEIPT_TIMEOUT_SECONDS)
