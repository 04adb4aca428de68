"""Run verifications on the gateways and endpoints of the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from iidq.observability import metrics
from iidq.provenance.ethereum.chain import Chain
from iidq.provenance.ethereum.chains import Chains, check_rpc_url
from iidq.provenance.ethereum.rpc_http import open_http
from iidq.provenance.ethereum.signature import require_native_curve
from iidq.provenance.manifest_source import open_manifest_source
from iidq.provenance.proof.proof_signature import ServiceKey
from iidq.provenance.report import ManifestPort, SharedManifests
from iidq.provenance.verdict_cache import SharedVerdicts, VerdictCache
from iidq.provenance.verify import RESULT_BUILT, Progress, prove, verify
from iidq.settings import Settings
from iidq.subject import Subject


def _unwatched(percent: int) -> None:
    """Ignore progress."""


class Verifier:
    """Runs verify and proof jobs, any number at a time in one event loop."""

    def __init__(
        self, settings: Settings, manifests: ManifestPort, chains: Chains, shared: SharedVerdicts | None = None
    ) -> None:
        self._settings = settings
        self._manifests = manifests
        self._chains = chains
        seconds = settings.result_cache_seconds
        self._verdicts = VerdictCache(seconds, shared) if seconds else None
        key = settings.private_key
        self._service_key = None if key is None else ServiceKey.from_hex(key.get_secret_value())

    async def run(self, kind: str, subject: Subject, progress: Progress = _unwatched) -> dict[str, Any]:
        """Return the result of a ``verify`` or ``proof`` job.

        A verdict for the same inputs is reused for ``RESULT_CACHE_SECONDS``, with ``reused`` in the report. Proofs are
        never reused, and signed if the service has a key.

        Raises :class:`PermanentFault` if no attempt can find a verdict, :class:`TemporaryFault` if a later one may. A
        FAIL verdict is a result.
        """
        chain = await self._chains.choose(subject.rpc_url, subject.chain_id, subject.endpoint_id)
        match kind:
            case "verify":
                result = await self._verify(subject, chain, progress)
                metrics.verdict_found(kind, result["status"])
                return result
            case "proof":
                proof = await prove(subject, self._manifests, chain, progress)
                metrics.verdict_found(kind, proof["verification"]["status"])
                return proof if self._service_key is None else self._service_key.sign(proof)
            case _:
                raise ValueError(f"no such kind of job: {kind!r}; expected 'verify' or 'proof'")

    async def _verify(self, subject: Subject, chain: Chain, progress: Progress) -> dict[str, Any]:
        if self._verdicts is None:
            return await verify(subject, self._manifests, chain, progress)
        key = (
            subject.content_hash.lower(),
            subject.manifest_uri,
            subject.registry_address.lower(),
            chain.chain_id,
            tuple(endpoint.url for endpoint in chain.endpoints),
        )
        result = await self._verdicts.reuse_or(key, lambda: verify(subject, self._manifests, chain, progress))
        progress(RESULT_BUILT)
        return result

    def check_rpc_url(self, url: str) -> str:
        """Return the configured URL for ``url``; raise :class:`FetchRefused` without a match."""
        return check_rpc_url(self._settings, url)


@asynccontextmanager
async def open_verifier(
    settings: Settings, shared_manifests: SharedManifests | None = None, shared_verdicts: SharedVerdicts | None = None
) -> AsyncIterator[Verifier]:
    """Open a verifier with connections. Raises :class:`SettingsFault` without a native curve."""
    require_native_curve()
    async with open_manifest_source(settings, shared_manifests) as manifests, open_http() as http:
        chains = Chains(settings, http)
        try:
            yield Verifier(settings, manifests, chains, shared_verdicts)
        finally:
            await chains.aclose()
