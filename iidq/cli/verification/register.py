"""``iidq register``: make and sign a file's manifest, and register the file's hash on a chain.

On the development chain a public account signs, on a real chain ``PRIVATE_KEY``. The key never leaves the process.
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

from iidq.cli.terminal import INTERRUPTED, byte_bars, complain, printable, say
from iidq.cli.verification.input_files import UnusableArguments, chain_account, hash_file
from iidq.cli.verification.verdict_words import NO_VERDICT
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
"""One IPFS block, so that the CID can be computed without a node."""
_PUBLISH_SECONDS: Final = 15.0
_WEI_PER_ETHER: Final = 10**18
# Account 0's first contract on every fresh development chain: where `iidq up` deploys its registry.
_DEVELOPMENT_REGISTRY: Final = "0x5FbDB2315678afecb367f032d93F642f64180aa3"


@dataclass(frozen=True, slots=True)
class RegisterOptions:
    """The options of a registration."""

    path: Path
    """The file to register."""
    registry: str | None
    """Address or CAIP-10 account of the registry; None for ``DEFAULT_REGISTRY``, then the development registry."""
    rpc_url: str | None
    """Endpoint of the chain; None for ``RPC_URLS_<chain_id>``, then ``RPC_URL``."""
    chain_id: int | None
    """Chain id that the endpoint must serve; None for any."""
    manifest_uri: str | None
    """Where the manifest will be reachable; None for ``ipfs://`` and its CID."""
    manifest_path: Path
    """Where to write the manifest. A manifest of the same content and creator that is already there is used again."""
    content_uri: str | None
    """URI of the content, noted in the manifest; None for its RFC 6920 name."""
    publish_url: str | None
    """A manifest server that serves uploads as an IPFS gateway does; None to publish nothing."""
    wait_seconds: float
    """Longest wait for the block."""
    dry_run: bool
    """Whether to show the plan and do nothing."""


class CannotRegister(Exception):
    """The registration is not possible; the text gives the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The whole registration, before anything is written or sent."""

    chain_id: int
    registry: ChecksumAddress
    creator: ChecksumAddress
    content_hash: str
    manifest: bytes
    manifest_uri: str
    transaction: TxParams | None
    """None if the hash is already registered by this creator with this manifest."""


def register(options: RegisterOptions, *, server: str, as_json: bool) -> int:
    """Register and print the result; return 0 once mined, 1 if not possible, 2 if not known."""
    settings = load_settings(rpc_url=options.rpc_url)
    registration = _Registration(options, settings, as_json=as_json)
    try:
        with byte_bars() as bars:
            content_hash = hash_file(options.path, bars)
        plan, mined = asyncio.run(registration.run(content_hash))
    except (RpcFault, NotMinedYet) as fault:
        complain(fault.message)
        return NO_VERDICT
    except (CannotRegister, UnusableArguments, PermanentFault, TransactionFault) as fault:
        complain(fault.message if isinstance(fault, IidqError) else str(fault))
        return _NOT_POSSIBLE
    except OSError as error:
        complain(f"{error.filename or options.path}: {error.strerror or error}")
        return NO_VERDICT
    except KeyboardInterrupt:
        complain(f"stopped; transaction {registration.sent} is on its way" if registration.sent else "stopped")
        return INTERRUPTED
    if as_json:
        print(json.dumps(_shape(plan, mined, options)))
    elif not options.dry_run:
        _print_next_steps(plan, options, server)
    return _DONE


class _Registration:
    def __init__(self, options: RegisterOptions, settings: Settings, *, as_json: bool) -> None:
        self._options = options
        self._settings = settings
        self._quiet = as_json
        self.sent = HexStr("")
        """The transaction's hash, set before it is sent."""

    async def run(self, content_hash: str) -> tuple[_Plan, Mined | None]:
        """Make the plan, show the plan, and unless for a dry run carry out the plan."""
        async with chain_at(self._rpc_url()) as chain:
            plan, key = await self._plan(chain, content_hash)
            self._show(plan)
            if self._options.dry_run:
                self._say("\nNothing was written, published or sent (--dry-run).")
                if self._options.manifest_uri is None and not self._options.manifest_path.exists():
                    self._say("The real URI will differ: the manifest contains the time of its signing.")
                return plan, None
            await self._put_manifest(plan)
            if plan.transaction is None:
                return plan, None
            signed = sign(plan.transaction, key)
            self.sent = HexStr(signed.hash.to_0x_hex())
            self._say(f"  {'sent':11} {self.sent}")
            await send(chain, signed)
            with Console(stderr=True).status("waiting for a block …"):
                mined = await wait_until_mined(chain, self.sent, wait_seconds=self._options.wait_seconds)
        self._say(f"  {'block':11} {mined.block_number}, for {_ether(mined.fee)}")
        return plan, mined

    def _rpc_url(self) -> str:
        chain_id = self._options.chain_id
        if self._options.rpc_url is None and chain_id in self._settings.rpc_urls:
            return self._settings.rpc_urls[chain_id][0]
        if self._settings.rpc_url is None:
            raise CannotRegister("there is no chain to register on: set RPC_URL, or give --rpc-url")
        return self._settings.rpc_url

    async def _plan(self, chain: AsyncWeb3[Any], content_hash: str) -> tuple[_Plan, str]:
        chain_id = await ask(chain.eth.chain_id)
        if self._options.chain_id not in (None, chain_id):
            raise CannotRegister(f"the endpoint serves chain {chain_id}, not {self._options.chain_id} as --chain says")
        key, creator = self._account(chain_id)
        registry = self._registry(chain_id)
        entry = await _read_entry(chain, registry, content_hash)
        if entry.registered and entry.creator != creator:
            raise CannotRegister(f"{content_hash} is registered already, by {entry.creator}: each hash only once")
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
            raise CannotRegister(f"chain {chain_id} is not the development chain: set PRIVATE_KEY to the creator's key")
        return key, Account.from_key(key).address

    def _registry(self, chain_id: int) -> ChecksumAddress:
        wanted_chain, registry = chain_account(self._options.registry) if self._options.registry else (None, "")
        default = self._settings.default_registry
        if not registry and default is not None and default.chain_id in (None, chain_id):
            registry = default.address
        if not registry and chain_id == DEVELOPMENT_CHAIN_ID:
            registry = _DEVELOPMENT_REGISTRY
        if not registry:
            raise CannotRegister("there is no registry to register in: give --registry, or set DEFAULT_REGISTRY")
        if wanted_chain not in (None, chain_id):
            raise CannotRegister(f"the endpoint serves chain {chain_id}, and the registry is on {wanted_chain}")
        return AsyncWeb3.to_checksum_address(registry)

    def _manifest(self, content_hash: str, key: str, creator: str, chain_id: int) -> bytes:
        """Return the existing manifest, so that a second try registers the same, else a new manifest."""
        path = self._options.manifest_path
        if path.exists():
            with path.open("rb") as file:
                body = file.read(_MAX_MANIFEST_BYTES + 1)
            if _is_manifest_of(body, content_hash, creator):
                return body
            raise CannotRegister(
                f"{path} exists and is no manifest of this content by {creator}; remove it, or give --manifest-file"
            )
        digest = base64.urlsafe_b64encode(bytes.fromhex(content_hash[2:])).decode().rstrip("=")
        # RFC 6920 names bytes without a location.
        return make_manifest(content_hash, key, self._options.content_uri or f"ni:///sha-256;{digest}", chain_id)

    def _checked_uri(self) -> str | None:
        uri = self._options.manifest_uri
        try:
            if uri is not None:
                parse_manifest_uri(uri, allow_private=FetchPolicy.opening(self._settings.fetch_allow_private))
        except FetchRefused as refusal:
            raise CannotRegister(
                f"--manifest-uri: {refusal.message} (services would refuse it; FETCH_ALLOW_PRIVATE opens private hosts)"
            ) from None
        return uri

    async def _put_manifest(self, plan: _Plan) -> None:
        self._options.manifest_path.write_bytes(plan.manifest)
        if self._options.publish_url is None:
            return
        url = f"{self._options.publish_url.rstrip('/')}/ipfs"
        try:
            async with httpx.AsyncClient(timeout=_PUBLISH_SECONDS, trust_env=False) as http:
                reply = await http.post(url, content=plan.manifest, headers={"Content-Type": "application/json"})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CannotRegister(f"{url} did not take the manifest ({str(error) or type(error).__name__})") from None
        cid = plan.manifest_uri.removeprefix("ipfs://")
        if reply.status_code != 201 or not reply.headers.get("location", "").endswith(f"/ipfs/{cid}"):
            raise CannotRegister(f"{url} did not take the manifest (HTTP {reply.status_code})")

    def _show(self, plan: _Plan) -> None:
        made = "kept" if self._options.manifest_path.exists() else "new"
        rows = {
            "file": self._options.path,
            "hash": plan.content_hash,
            "creator": plan.creator,
            "chain": plan.chain_id,
            "registry": plan.registry,
            "manifest": f"{self._options.manifest_path} ({made})",
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


def _print_next_steps(plan: _Plan, options: RegisterOptions, server: str) -> None:
    path, uri = options.manifest_path, plan.manifest_uri
    if options.publish_url is not None:
        say(f"\nThe manifest is published at {options.publish_url}.")
    elif uri.startswith("ipfs://"):
        cid = uri.removeprefix("ipfs://")
        say(f"\nNow put the manifest on IPFS, byte for byte: verification needs it. This command gives {cid}:")
        say(f"  ipfs add --cid-version 0 {shlex.quote(str(path))}")
    else:
        say(f"\nNow put {printable(str(path))}, byte for byte, at its registered URI: verification needs it.")
        say(f"  {uri}")
    say("\nThen verify it:")
    words = ["iidq", "verify", str(options.path), "--manifest", uri, "--registry", plan.registry]
    say(f"  {shlex.join([*words, '--chain', str(plan.chain_id), '--server', server])}")
    fields = {"contentHash": plan.content_hash, "registryAddress": plan.registry, "manifestURI": uri}
    body = json.dumps(fields | {"chainId": plan.chain_id})
    url = f"{server.rstrip('/')}/api/verification-jobs/verify"
    say(f"  curl -H 'Content-Type: application/json' -H 'Prefer: wait=30' {shlex.quote(url)} -d {shlex.quote(body)}")


def _shape(plan: _Plan, mined: Mined | None, options: RegisterOptions) -> dict[str, Any]:
    return {
        "contentHash": plan.content_hash,
        "manifestUri": plan.manifest_uri,
        "manifestFile": None if options.dry_run else str(options.manifest_path),
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
