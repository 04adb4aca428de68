"""The verification: from a subject to a verdict (:func:`verify`) or a proof (:func:`prove`).

1. Read the registry's entry at one pinned block, while steps 2 and 3 run (:class:`ChainPort`, real: ``chain.py``).
2. Fetch the manifest (:class:`.ManifestPort`, real: ``manifest_source.py``) and parse it (``manifest.py``).
3. Recover the signer of the manifest's ``content_hash`` (``signature.py``).
4. If the signer is not the registered creator, call the creator as a contract wallet, EIP-1271 (:func:`_ask_wallet`).
5. Proofs only: find the transaction of the registration (:meth:`ChainPort.find_registration`).
6. Judge the evidence (``verdict.py``); build the result with its report.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from iidq.concurrency.decoding import decode_in_thread
from iidq.errors import GatewayFault, SignatureFault, TemporaryFault
from iidq.observability.steps import step
from iidq.portable_values import iso_milliseconds, storable_text
from iidq.provenance.conclusion import HEADLINES
from iidq.provenance.ethereum.address import checksum_address
from iidq.provenance.ethereum.chain import OnchainEntry, WalletAnswer
from iidq.provenance.ethereum.registration import Registration
from iidq.provenance.ethereum.signature import personal_digest, recover_signer
from iidq.provenance.manifest import Manifest, parse_manifest
from iidq.provenance.report import ManifestPort, SourceTried
from iidq.provenance.verdict import ContractWallet, Evidence, Verdict, judge
from iidq.subject import Subject

Progress = Callable[[int], None]

# Progress in percent, once each step is done.
HASH_KNOWN: Final = 10
MANIFEST_FETCHED: Final = 30
SIGNER_RECOVERED: Final = 50
REGISTRY_READ: Final = 70
TRANSACTION_SEARCHED: Final = 85
RESULT_BUILT: Final = 90
# A longer manifest is parsed in a thread.
_LONG_MANIFEST_BYTES: Final = 64 << 10
_UNNAMED_FILE: Final = "unknown"


class ChainPort(Protocol):
    """The chain of a verification; :class:`iidq.provenance.ethereum.chain.Chain` is the real one."""

    async def read_entry(self, registry_address: str, content_hash: str) -> OnchainEntry:
        """Return the entry at a pinned block; raise RegistryFault or RpcFault."""
        ...

    async def ask_wallet(self, onchain: OnchainEntry, digest: bytes, signature: bytes) -> WalletAnswer:
        """Return the answer of the creator's contract to a signature (EIP-1271), if there is one; raise RpcFault."""
        ...

    async def find_registration(self, onchain: OnchainEntry) -> Registration:
        """Return the transaction of the registration, or the reason for its absence; raise RpcFault."""
        ...


async def verify(subject: Subject, manifests: ManifestPort, chain: ChainPort, progress: Progress) -> dict[str, Any]:
    """Return the verify result; raise the ports' faults, ManifestFault or SignatureFault."""
    evidence, onchain, sources = await _gather_evidence(subject, manifests, chain, progress)
    verdict = judge(evidence)
    result = {
        "status": verdict.status,
        "fileHash": evidence.content_hash,
        "recovered": evidence.recovered,
        "onchain": {
            "creator": onchain.entry.creator,
            "contentHash": onchain.entry.content_hash,
            "manifestURI": storable_text(onchain.entry.manifest_uri),
            "timestamp": onchain.entry.timestamp,
        },
        "checks": {
            "manifestHashOk": verdict.manifest_hash_ok,
            "creatorOk": verdict.creator_ok,
            "manifestOk": verdict.manifest_ok,
        },
        "report": _report(verdict, sources, onchain, iso_milliseconds(datetime.now(UTC))),
    }
    progress(RESULT_BUILT)
    return result


async def prove(subject: Subject, manifests: ManifestPort, chain: ChainPort, progress: Progress) -> dict[str, Any]:
    """Return the proof: verdict, evidence, and the transaction of the registration if found."""
    evidence, onchain, sources = await _gather_evidence(subject, manifests, chain, progress)
    with step("transaction"):
        registration = await chain.find_registration(onchain)
    progress(TRANSACTION_SEARCHED)
    verdict = judge(replace(evidence, registration=registration))
    verified_at = iso_milliseconds(datetime.now(UTC))
    result = {
        "version": "1.0",
        "generated_at": verified_at,
        "network": {"chainId": onchain.block.chain_id},
        "registry": checksum_address(subject.registry_address),
        "content": {"file": subject.file_name or _UNNAMED_FILE, "hash": evidence.content_hash},
        "manifest": _proof_manifest(subject.manifest_uri, evidence.manifest),
        "onchain": {
            "creator": onchain.entry.creator,
            "manifestURI": storable_text(onchain.entry.manifest_uri),
            "timestamp": onchain.entry.timestamp,
        },
        "signature": {"recovered": evidence.recovered, "valid": verdict.creator_ok},
        **({"tx": {"txHash": registration.tx_hash}} if registration.tx_hash else {}),
        "verification": {
            "fileHashMatchesManifest": verdict.manifest_hash_ok,
            "creatorMatchesOnchain": verdict.creator_ok,
            "manifestURIMatchesOnchain": verdict.manifest_ok,
            "status": verdict.status,
        },
        "report": _report(verdict, (*sources, *registration.sources), onchain, verified_at),
    }
    progress(RESULT_BUILT)
    return result


async def _gather_evidence(
    subject: Subject, manifests: ManifestPort, chain: ChainPort, progress: Progress
) -> tuple[Evidence, OnchainEntry, tuple[SourceTried, ...]]:
    content_hash = subject.content_hash.lower()
    progress(HASH_KNOWN)
    reading = asyncio.create_task(_read_entry(chain, subject.registry_address, content_hash))
    try:
        with step("manifest"):
            fetched = await manifests.fetch(subject.manifest_uri)
            manifest = await _parsed(fetched.body)
        progress(MANIFEST_FETCHED)
        with step("signature"):
            signer = _signer(manifest)
        progress(SIGNER_RECOVERED)
        onchain = await reading
    except GatewayFault as fault:
        # The next attempt needs gateway and chain: it starts after the later Retry-After of both.
        chain_seconds = _retry_after_of(reading)
        if chain_seconds is None or chain_seconds <= (fault.retry_after_seconds or 0):
            raise
        raise GatewayFault(fault.message, code=fault.code, retry_after_seconds=chain_seconds) from None
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    recovered, wallet, sources = await _ask_wallet(signer, manifest, chain, onchain)
    progress(REGISTRY_READ)
    evidence = Evidence(
        content_hash=content_hash,
        manifest_uri=subject.manifest_uri,
        manifest=manifest,
        cid_verified=fetched.cid_verified,
        recovered=recovered,
        entry=onchain.entry,
        chain_id=onchain.block.chain_id,
        wallet=wallet,
    )
    return evidence, onchain, (*fetched.sources, *onchain.sources, *sources)


def _retry_after_of(reading: asyncio.Task[OnchainEntry]) -> float | None:
    """Return the Retry-After of the chain's endpoints in seconds, if the read has failed by now."""
    fault = reading.exception() if reading.done() and not reading.cancelled() else None
    return fault.retry_after_seconds if isinstance(fault, TemporaryFault) else None


async def _read_entry(chain: ChainPort, registry_address: str, content_hash: str) -> OnchainEntry:
    with step("registry"):
        return await chain.read_entry(registry_address, content_hash)


def _signer(manifest: Manifest) -> str | SignatureFault:
    """Return the signer, or the fault if no key fits; a contract wallet may still accept."""
    try:
        return recover_signer(manifest.content_hash, manifest.signature)
    except SignatureFault as fault:
        return fault


async def _ask_wallet(
    signer: str | SignatureFault, manifest: Manifest, chain: ChainPort, onchain: OnchainEntry
) -> tuple[str | None, ContractWallet | None, tuple[SourceTried, ...]]:
    """Return the recovered key, the contract wallet's answer and the sources.

    Another signer than the creator leads to a call of the creator. Raises the :class:`SignatureFault` if no key fits
    the signature and the creator is no contract.
    """
    recovered = signer if isinstance(signer, str) else None
    wallet: ContractWallet | None = None
    sources: tuple[SourceTried, ...] = ()
    if onchain.entry.registered and recovered != onchain.entry.creator:
        with step("wallet"):
            answer = await chain.ask_wallet(
                onchain, personal_digest(manifest.content_hash), bytes.fromhex(manifest.signature[2:])
            )
        sources = answer.sources
        if answer.accepts is not None:
            wallet = ContractWallet(answer.accepts)
    if wallet is None and isinstance(signer, SignatureFault):
        raise signer
    return None if wallet and wallet.accepts else recovered, wallet, sources


async def _parsed(body: bytes) -> Manifest:
    if len(body) > _LONG_MANIFEST_BYTES:
        return await decode_in_thread(parse_manifest, body)
    return parse_manifest(body)


def _proof_manifest(manifest_uri: str, manifest: Manifest) -> dict[str, Any]:
    creator = {} if manifest.creator_did is None else {"creator_did": manifest.creator_did}
    return {"uri": manifest_uri, **creator, "signature": manifest.signature}


def _report(
    verdict: Verdict, sources: tuple[SourceTried, ...], onchain: OnchainEntry, verified_at: str
) -> dict[str, Any]:
    return {
        "conclusion": {"code": verdict.conclusion, "message": HEADLINES[verdict.conclusion]},
        "checks": [check.as_json() for check in verdict.checks],
        "sources": [source.as_json() for source in sources],
        "block": onchain.block.as_json(),
        "verifiedAt": verified_at,
        "reused": False,
    }
