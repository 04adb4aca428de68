"""Deploy and use our ContentRegistry over any JSON-RPC endpoint: the development chain, anvil, geth.

For the demo and tests. Transactions are signed here; the keys are usually of :mod:`iidq.embedded.accounts`. One
sender's transactions must follow one another: each takes its nonce from the chain. Every function raises
:class:`RegistrationFailed` if the endpoint refuses or the transaction reverts.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import httpx

from iidq.embedded.contracts import Layout, compiled_contract
from iidq.errors import IidqError

_REQUEST_TIMEOUT_SECONDS = 30
_RECEIPT_TIMEOUT_SECONDS = 60
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 1.0


class RegistrationFailed(IidqError):
    """A transaction to the registry was refused, reverted, or not mined in time."""

    code = "embedded.registry"


@dataclass(frozen=True)
class RegistrationReceipt:
    """Where a transaction stands on the chain; ``timestamp`` is its block's, in Unix seconds."""

    tx_hash: str
    block_number: int
    timestamp: int


async def deploy_registry(rpc_url: str, key: str, layout: Layout = "new") -> str:
    """Deploy the registry with this layout; return its EIP-55 address."""
    from eth_utils.address import to_checksum_address

    async with _client(rpc_url) as client:
        receipt = await _send(_Endpoint(client, rpc_url), key, None, compiled_contract(layout).bytecode)
    return to_checksum_address(receipt["contractAddress"])


async def register(rpc_url: str, registry: str, key: str, content_hash: str, manifest_uri: str) -> RegistrationReceipt:
    """Register ``content_hash`` (0x and 64 hex digits) for the key's owner."""
    return await _transact(rpc_url, registry, key, "register(bytes32,string)", content_hash, manifest_uri)


async def update_manifest(
    rpc_url: str, registry: str, key: str, content_hash: str, manifest_uri: str
) -> RegistrationReceipt:
    """Point a registered hash to another manifest; only its creator's key can."""
    return await _transact(rpc_url, registry, key, "updateManifest(bytes32,string)", content_hash, manifest_uri)


async def revoke(rpc_url: str, registry: str, key: str, content_hash: str) -> RegistrationReceipt:
    """Empty a registered hash's manifest URI; only its creator's key can."""
    return await _transact(rpc_url, registry, key, "revoke(bytes32)", content_hash)


async def _transact(
    rpc_url: str, registry: str, key: str, function: str, content_hash: str, *texts: str
) -> RegistrationReceipt:
    from eth_abi.abi import encode
    from eth_utils.crypto import keccak

    types = function[function.index("(") + 1 : -1].split(",")
    call = keccak(text=function)[:4] + encode(types, [bytes.fromhex(content_hash.removeprefix("0x")), *texts])
    async with _client(rpc_url) as client:
        endpoint = _Endpoint(client, rpc_url)
        receipt = await _send(endpoint, key, registry, call)
        block = await endpoint.call("eth_getBlockByHash", receipt["blockHash"], False)
    return RegistrationReceipt(receipt["transactionHash"], int(receipt["blockNumber"], 16), int(block["timestamp"], 16))


def _client(rpc_url: str) -> httpx.AsyncClient:
    # Reading the certificate authorities takes 50 ms, and plain HTTP needs none.
    return httpx.AsyncClient(timeout=_REQUEST_TIMEOUT_SECONDS, verify=not rpc_url.startswith("http://"))


async def _send(endpoint: "_Endpoint", key: str, to: str | None, data: bytes) -> dict[str, Any]:
    """Sign and send a transaction (EIP-1559); return its receipt once it is mined and has succeeded."""
    from eth_account import Account

    account = Account.from_key(key)
    message = {"from": account.address, "data": "0x" + data.hex(), **({"to": to} if to else {})}
    gas = int(await endpoint.call("eth_estimateGas", message), 16)
    tip = int(await endpoint.call("eth_maxPriorityFeePerGas"), 16)
    gas_price = int(await endpoint.call("eth_gasPrice"), 16)
    signed = account.sign_transaction(
        {
            "type": 2,
            "chainId": int(await endpoint.call("eth_chainId"), 16),
            "nonce": int(await endpoint.call("eth_getTransactionCount", account.address, "pending"), 16),
            # The state may change before the block: a slot that was warm or written to costs more.
            "gas": gas + gas // 5,
            "maxPriorityFeePerGas": tip,
            "maxFeePerGas": 2 * gas_price + tip,
            "value": 0,
            "data": data,
            **({"to": to} if to else {}),
        }
    )
    tx_hash = await endpoint.call("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex().removeprefix("0x"))
    receipt = await _receipt(endpoint, tx_hash)
    if receipt["status"] != "0x1":
        raise RegistrationFailed(f"transaction {tx_hash} reverted")
    return receipt


async def _receipt(endpoint: "_Endpoint", tx_hash: str) -> dict[str, Any]:
    deadline = time.monotonic() + _RECEIPT_TIMEOUT_SECONDS
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        receipt: dict[str, Any] | None = await endpoint.call("eth_getTransactionReceipt", tx_hash)
        if receipt is not None:
            return receipt
        if time.monotonic() > deadline:
            raise RegistrationFailed(f"transaction {tx_hash} was not mined in {_RECEIPT_TIMEOUT_SECONDS} s")
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


@dataclass(frozen=True)
class _Endpoint:
    client: httpx.AsyncClient
    url: str

    async def call(self, method: str, *params: Any) -> Any:
        try:
            reply = await self.client.post(
                self.url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            )
            body = reply.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise RegistrationFailed(f"{method}: no usable reply from the endpoint ({type(error).__name__})") from error
        if "error" in body:
            raise RegistrationFailed(f"{method}: {body['error'].get('message', 'refused')}")
        return body["result"]
