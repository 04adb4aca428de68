"""``iidq register``: a file's manifest made and signed, and its hash registered on a chain.

On the development chain with one of its public accounts; on a real one with ``PRIVATE_KEY``, which signs here and is
neither sent nor printed.
"""

import asyncio
import base64
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from eth_account import Account
from eth_typing import ChecksumAddress, HexStr
from rich.console import Console
from web3 import AsyncWeb3
from web3.types import TxParams

from iidq.cli.terminal import INTERRUPTED, NOT_FOUND_OUT, byte_bars, complain, printable, say
from iidq.cli.verification.file_hash import hash_file
from iidq.cli.verification.input_files import UnusableArguments, chain_account
from iidq.errors import FetchRefused, IidqError, PermanentFault, RpcFault
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_CHAIN_ID, DEVELOPMENT_KEYS
from iidq.provenance.ethereum.registry import Entry, decode_entry, encode_entries_call, encode_register_call
from iidq.provenance.ethereum.signature import recover_signer
from iidq.provenance.ethereum.transactions import (
    Mined,
    NotMinedYet,
    TransactionFault,
    ask,
    chain_at,
    most_expensive,
    price,
    send,
    sign,
    wait_until_mined,
)
from iidq.provenance.ipfs.cid import dag_pb_cid
from iidq.provenance.ipfs.unixfs import wrap_file
from iidq.provenance.manifest import make_manifest, parse_manifest
from iidq.provenance.manifest_uri import parse_manifest_uri
from iidq.settings import Settings, load_settings

_DONE, _NOT_POSSIBLE = 0, 1
_MAX_MANIFEST_BYTES: Final = 256 * 1024
"""One block of IPFS: then its CID can be told without a node."""
_PUBLISH_SECONDS: Final = 15.0
_WEI_PER_ETHER: Final = 10**18
# Account 0's first contract on every fresh development chain: where `iidq up` deploys its registry.
_DEVELOPMENT_REGISTRY: Final = "0x5FbDB2315678afecb367f032d93F642f64180aa3"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be registered, and where; None is chosen by :func:`register`."""

    path: Path
    registry: str | None
    rpc_url: str | None
    chain_id: int | None
    manifest_uri: str | None
    """Where the manifest will be reachable."""
    manifest_path: Path
    content_uri: str | None
    publish_url: str | None
    """A server that takes the manifest and serves it as an IPFS gateway does, as the one of `iidq up`."""
    wait_seconds: float
    dry_run: bool


class CannotRegister(Exception):
    """It is not possible as things stand; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that is known before the first thing is done."""

    chain_id: int
    registry: ChecksumAddress
    creator: ChecksumAddress
    content_hash: str
    manifest: bytes
    manifest_uri: str
    transaction: TxParams | None
    """None where the hash is registered already, by this creator and with this manifest."""


def register(wish: Wish, *, server: str, as_json: bool) -> int:
    """Do it and print what was done; 0 once it is mined, 1 where it is not possible, 2 where that is not known."""
    settings = load_settings(rpc_url=wish.rpc_url)
    registering = _Registering(wish, settings, as_json=as_json)
    try:
        with byte_bars() as bars:
            content_hash = hash_file(wish.path, bars)
        plan, mined = asyncio.run(registering.run(content_hash))
    except (CannotRegister, UnusableArguments, PermanentFault) as fault:
        complain(fault.message if isinstance(fault, IidqError) else str(fault))
        return _NOT_POSSIBLE
    except (RpcFault, NotMinedYet) as fault:
        complain(fault.message)
        return NOT_FOUND_OUT
    except TransactionFault as fault:
        complain(fault.message)
        return _NOT_POSSIBLE
    except OSError as error:
        complain(f"{error.filename or wish.path}: {error.strerror or error}")
        return NOT_FOUND_OUT
    except KeyboardInterrupt:
        complain(f"stopped; transaction {registering.sent} is on its way" if registering.sent else "stopped")
        return INTERRUPTED
    if as_json:
        print(json.dumps(_shape(plan, mined, wish)))
    elif not wish.dry_run:
        _tell_what_to_do(plan, wish, server)
    return _DONE


class _Registering:
    """One registration; ``sent`` is the transaction's hash once it may be on its way."""

    def __init__(self, wish: Wish, settings: Settings, *, as_json: bool) -> None:
        self._wish = wish
        self._settings = settings
        self._quiet = as_json
        self.sent = HexStr("")

    async def run(self, content_hash: str) -> tuple[_Plan, Mined | None]:
        """Plan, show the plan, and unless that was all that is wanted, carry it out."""
        async with chain_at(self._rpc_url()) as chain:
            plan, key = await self._plan(chain, content_hash)
            self._show(plan)
            if self._wish.dry_run:
                self._say("\nNothing was written, published or sent (--dry-run).")
                if self._wish.manifest_uri is None and not self._wish.manifest_path.exists():
                    self._say("The real URI will be another: the manifest carries the time of its signing.")
                return plan, None
            await self._put_manifest(plan)
            if plan.transaction is None:
                return plan, None
            signed = sign(plan.transaction, key)
            self.sent = HexStr(signed.hash.to_0x_hex())
            self._say(f"  {'sent':11} {self.sent}")
            await send(chain, signed)
            with Console(stderr=True).status("waiting for a block …"):
                mined = await wait_until_mined(chain, self.sent, wait_seconds=self._wish.wait_seconds)
        self._say(f"  {'block':11} {mined.block_number}, for {_ether(mined.fee)}")
        return plan, mined

    def _rpc_url(self) -> str:
        chain_id = self._wish.chain_id
        if self._wish.rpc_url is None and chain_id in self._settings.rpc_urls:
            return self._settings.rpc_urls[chain_id][0]
        if self._settings.rpc_url is None:
            raise CannotRegister("no chain is named: set RPC_URL, or give --rpc-url")
        return self._settings.rpc_url

    async def _plan(self, chain: AsyncWeb3[Any], content_hash: str) -> tuple[_Plan, str]:
        chain_id = await ask(chain.eth.chain_id)
        if self._wish.chain_id not in (None, chain_id):
            raise CannotRegister(f"the endpoint serves chain {chain_id}, not {self._wish.chain_id} as --chain says")
        key, creator = self._account(chain_id)
        registry = self._registry(chain_id)
        entry = await _read_entry(chain, registry, content_hash)
        if entry.registered and entry.creator != creator:
            raise CannotRegister(f"{content_hash} is registered already, by {entry.creator}; nobody can do so twice")
        manifest = self._manifest(content_hash, key, creator, chain_id)
        manifest_uri = self._checked_uri() or f"ipfs://{dag_pb_cid(wrap_file(manifest))}"
        if entry.registered and entry.manifest_uri != manifest_uri:
            held = f"its manifest is {entry.manifest_uri}" if entry.manifest_uri else "it was revoked"
            raise CannotRegister(f"{content_hash} is registered already, by this account; {held}")
        transaction = None
        if not entry.registered:
            data = HexStr(encode_register_call(content_hash, manifest_uri))
            transaction = await price(chain, sender=creator, to=registry, data=data)
            balance, cost = await ask(chain.eth.get_balance(creator)), most_expensive(transaction)
            if balance < cost:
                raise CannotRegister(f"{creator} holds {_ether(balance)}; expected {_ether(cost)} for the gas")
        return _Plan(chain_id, registry, creator, content_hash, manifest, manifest_uri, transaction), key

    def _account(self, chain_id: int) -> tuple[str, ChecksumAddress]:
        if self._settings.private_key is not None:
            key = self._settings.private_key.get_secret_value()
        elif chain_id == DEVELOPMENT_CHAIN_ID:
            key = DEVELOPMENT_KEYS[1]
        else:
            raise CannotRegister(f"chain {chain_id} is a real one: set PRIVATE_KEY to the creator's key")
        return key, Account.from_key(key).address

    def _registry(self, chain_id: int) -> ChecksumAddress:
        wanted_chain, registry = chain_account(self._wish.registry) if self._wish.registry else (None, "")
        default = self._settings.default_registry
        if not registry and default is not None and default.chain_id in (None, chain_id):
            registry = default.address
        if not registry and chain_id == DEVELOPMENT_CHAIN_ID:
            registry = _DEVELOPMENT_REGISTRY
        if not registry:
            raise CannotRegister("no registry is named: give --registry, or set DEFAULT_REGISTRY")
        if wanted_chain not in (None, chain_id):
            raise CannotRegister(f"the endpoint serves chain {chain_id}, and the registry is on {wanted_chain}")
        return AsyncWeb3.to_checksum_address(registry)

    def _manifest(self, content_hash: str, key: str, creator: str, chain_id: int) -> bytes:
        """The manifest that was made before, so that a second try registers the same one; else a new one."""
        path = self._wish.manifest_path
        if path.exists():
            with path.open("rb") as file:
                body = file.read(_MAX_MANIFEST_BYTES + 1)
            if _is_manifest_of(body, content_hash, creator):
                return body
            raise CannotRegister(
                f"{path} is there already, and is no manifest of this content by {creator}; "
                "remove it, or give --manifest-file"
            )
        digest = base64.urlsafe_b64encode(bytes.fromhex(content_hash[2:])).decode().rstrip("=")
        # RFC 6920: a name for bytes that says nothing of where they are.
        return make_manifest(content_hash, key, self._wish.content_uri or f"ni:///sha-256;{digest}", chain_id)

    def _checked_uri(self) -> str | None:
        uri = self._wish.manifest_uri
        try:
            if uri is not None:
                parse_manifest_uri(uri, allow_private=FetchPolicy.opening(self._settings.fetch_allow_private))
        except FetchRefused as refusal:
            raise CannotRegister(
                f"--manifest-uri: {refusal.message} (services would refuse it; FETCH_ALLOW_PRIVATE opens private hosts)"
            ) from None
        return uri

    async def _put_manifest(self, plan: _Plan) -> None:
        self._wish.manifest_path.write_bytes(plan.manifest)
        if self._wish.publish_url is None:
            return
        url = f"{self._wish.publish_url.rstrip('/')}/ipfs"
        try:
            async with httpx.AsyncClient(timeout=_PUBLISH_SECONDS, trust_env=False) as http:
                reply = await http.post(url, content=plan.manifest, headers={"Content-Type": "application/json"})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CannotRegister(f"{url} did not take the manifest ({str(error) or type(error).__name__})") from None
        cid = plan.manifest_uri.removeprefix("ipfs://")
        if reply.status_code != 201 or not reply.headers.get("location", "").endswith(f"/ipfs/{cid}"):
            raise CannotRegister(f"{url} did not take the manifest (HTTP {reply.status_code})")

    def _show(self, plan: _Plan) -> None:
        made = "kept" if self._wish.manifest_path.exists() else "new"
        rows = {
            "file": self._wish.path,
            "hash": plan.content_hash,
            "creator": plan.creator,
            "chain": plan.chain_id,
            "registry": plan.registry,
            "manifest": f"{self._wish.manifest_path} ({made})",
            "URI": plan.manifest_uri,
        }
        if plan.transaction is None:
            rows["registered"] = "already, with this manifest"
        else:
            gas = plan.transaction["gas"]
            rows["costs"] = f"at most {_ether(most_expensive(plan.transaction))}, {gas:,} gas"
        for name, value in rows.items():
            self._say(f"  {name:11} {printable(str(value))}")

    def _say(self, line: str) -> None:
        if not self._quiet:
            say(line)


async def _read_entry(chain: AsyncWeb3[Any], registry: ChecksumAddress, content_hash: str) -> Entry:
    if not await ask(chain.eth.get_code(registry)):
        raise CannotRegister(f"there is no contract at {registry}; expected a ContentRegistry")
    call: TxParams = {"to": registry, "data": HexStr(encode_entries_call(content_hash))}
    return decode_entry(await ask(chain.eth.call(call)), content_hash)


def _is_manifest_of(body: bytes, content_hash: str, creator: str) -> bool:
    try:
        manifest = parse_manifest(body)
        return (
            len(body) <= _MAX_MANIFEST_BYTES
            and manifest.content_hash == content_hash
            and recover_signer(content_hash, manifest.signature) == creator
        )
    except PermanentFault:
        return False


def _tell_what_to_do(plan: _Plan, wish: Wish, server: str) -> None:
    path, uri = wish.manifest_path, plan.manifest_uri
    if wish.publish_url is not None:
        say(f"\nThe manifest is published at {wish.publish_url}.")
    elif uri.startswith("ipfs://"):
        cid = uri.removeprefix("ipfs://")
        say(f"\nNow put the manifest on IPFS, byte for byte, or nobody can verify; this gives {cid}:")
        say(f"  ipfs add --cid-version 0 {shlex.quote(str(path))}")
    else:
        say(f"\nNow put {printable(str(path))}, byte for byte, where it is registered, or nobody can verify:")
        say(f"  {uri}")
    say("\nThen verify it:")
    words = ["iidq", "verify", str(wish.path), "--manifest", uri, "--registry", plan.registry]
    say(f"  {shlex.join([*words, '--chain', str(plan.chain_id), '--server', server])}")
    fields = {"contentHash": plan.content_hash, "registryAddress": plan.registry, "manifestURI": uri}
    body = json.dumps(fields | {"chainId": plan.chain_id})
    url = f"{server.rstrip('/')}/api/verification-jobs/verify"
    say(f"  curl -H 'Content-Type: application/json' -H 'Prefer: wait=30' {shlex.quote(url)} -d {shlex.quote(body)}")


def _shape(plan: _Plan, mined: Mined | None, wish: Wish) -> dict[str, Any]:
    return {
        "contentHash": plan.content_hash,
        "manifestUri": plan.manifest_uri,
        "manifestFile": None if wish.dry_run else str(wish.manifest_path),
        "registryAddress": plan.registry,
        "chainId": plan.chain_id,
        "creator": plan.creator,
        "alreadyRegistered": plan.transaction is None,
        "mostExpensiveWei": None if plan.transaction is None else str(most_expensive(plan.transaction)),
        "txHash": mined and mined.hash,
        "blockNumber": mined and mined.block_number,
        "feeWei": mined and str(mined.fee),
    }


def _ether(wei: int) -> str:
    whole, rest = divmod(wei, _WEI_PER_ETHER)
    decimals = f"{rest:018d}".rstrip("0")
    return f"{whole}{'.' + decimals if decimals else ''} ether"
