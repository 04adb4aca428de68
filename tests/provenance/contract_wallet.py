"""A contract wallet on a real chain: deployed, registering content, with calls for signatures."""

import json
from pathlib import Path

from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from iidq.embedded.demo_registry import deploy, execute

FOLDER = Path(__file__).parent / "contracts"
ARTIFACT = json.loads((FOLDER / "ContractWallet.json").read_text())


async def deploy_wallet(rpc_url: str, owner_key: str, mood: int = 0) -> str:
    """Deploy a wallet owned by the key's account; return the EIP-55 address. ``mood`` as in ContractWallet.sol."""
    arguments = encode(["address", "uint256"], [Account.from_key(owner_key).address, mood])
    return await deploy(rpc_url, owner_key, bytes.fromhex(ARTIFACT["bytecode"][2:]) + arguments)


async def register_by_wallet(
    rpc_url: str, wallet: str, owner_key: str, registry: str, content_hash: str, manifest_uri: str
) -> str:
    """Have the wallet register a content; return the transaction's hash."""
    registering = keccak(text="register(bytes32,string)")[:4] + encode(
        ["bytes32", "string"], [bytes.fromhex(content_hash[2:]), manifest_uri]
    )
    call = keccak(text="execute(address,bytes)")[:4] + encode(["address", "bytes"], [registry, registering])
    return (await execute(rpc_url, owner_key, wallet, call)).hash
