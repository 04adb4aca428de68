"""A contract wallet on a real chain: deployed, registering content, asked about signatures."""

import json
from pathlib import Path

from eth_abi.abi import encode
from eth_account import Account
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from iidq.embedded.registry import _client, _Endpoint, _send

FOLDER = Path(__file__).parent / "contracts"
ARTIFACT = json.loads((FOLDER / "ContractWallet.json").read_text())


async def deploy_wallet(rpc_url: str, owner_key: str, mood: int = 0) -> str:
    """Deploy a wallet owned by the key's account; return its EIP-55 address. ``mood`` as in ContractWallet.sol."""
    arguments = encode(["address", "uint256"], [Account.from_key(owner_key).address, mood])
    async with _client(rpc_url) as client:
        code = bytes.fromhex(ARTIFACT["bytecode"][2:]) + arguments
        receipt = await _send(_Endpoint(client, rpc_url), owner_key, None, code)
    return to_checksum_address(receipt["contractAddress"])


async def register_by_wallet(
    rpc_url: str, wallet: str, owner_key: str, registry: str, content_hash: str, manifest_uri: str
) -> str:
    """Have the wallet register a content; return the transaction's hash."""
    registering = keccak(text="register(bytes32,string)")[:4] + encode(
        ["bytes32", "string"], [bytes.fromhex(content_hash[2:]), manifest_uri]
    )
    call = keccak(text="execute(address,bytes)")[:4] + encode(["address", "bytes"], [registry, registering])
    async with _client(rpc_url) as client:
        receipt = await _send(_Endpoint(client, rpc_url), owner_key, wallet, call)
    return str(receipt["transactionHash"])
