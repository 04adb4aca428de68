"""Fetch manifests: verified bytes from IPFS gateways, or from the web through the guarded client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from iidq.concurrency.bounded_cache import BoundedCache
from iidq.concurrency.single_flight import SingleFlight
from iidq.errors import GatewayFault, IidqError, ManifestFault
from iidq.guarded_http.fetch import WebAnswer, WebFetcher, fresh_seconds, retry_after_seconds
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.url import WebUrl
from iidq.observability import metrics
from iidq.observability.redaction import redact_url
from iidq.provenance.digest import sha256_label
from iidq.provenance.ipfs.cid import Cid
from iidq.provenance.ipfs.gateway import Gateway
from iidq.provenance.ipfs.gateways import IpfsGateways
from iidq.provenance.ipfs.unixfs import names_plain_file
from iidq.provenance.manifest_uri import IpfsUri, parse_manifest_uri
from iidq.provenance.report import FetchedManifest, SharedManifests, SourceTried
from iidq.settings import Settings

_CACHE_BYTES = 32 << 20
# Rough size of a kept manifest beyond its body: the texts of its sources and the bookkeeping.
_OVERHEAD_BYTES = 2048
_ACCEPT_JSON = (("Accept", "application/json, */*;q=0.5"),)

FileKey = tuple[Cid, tuple[str, ...]]


class ManifestSource:
    """Fetches manifests; keeps verified manifests by CID, in memory and in the cache of all processes.

    Manifests from the web are kept in memory only, for as long as their headers allow.
    """

    def __init__(
        self,
        *,
        policy: FetchPolicy,
        web: WebFetcher,
        gateways: IpfsGateways,
        max_bytes: int,
        shared: SharedManifests | None = None,
    ) -> None:
        self._policy = policy
        self._web = web
        self._gateways = gateways
        self._max_bytes = max_bytes
        self._shared = shared
        self._cache: BoundedCache[FetchedManifest] = BoundedCache(
            _CACHE_BYTES, lambda manifest: len(manifest.body) + _OVERHEAD_BYTES
        )
        self._flights: SingleFlight[FileKey, FetchedManifest] = SingleFlight()

    async def fetch(self, manifest_uri: str) -> FetchedManifest:
        """Return the bytes of the manifest and every source that was requested.

        Raises :class:`FetchRefused` for a forbidden URI or redirect, :class:`ManifestFault` for a missing or too large
        manifest, :class:`GatewayFault` for a temporary fault.
        """
        uri = parse_manifest_uri(manifest_uri, allow_private=self._policy)
        if isinstance(uri, IpfsUri):
            return await self._from_ipfs(uri)
        return await self._from_web(uri)

    async def aclose(self) -> None:
        """Close the open connections."""
        await self._gateways.aclose()
        await self._web.aclose()

    async def _from_ipfs(self, uri: IpfsUri) -> FetchedManifest:
        key = (uri.cid, uri.path)
        kept = self._cache.get(key)
        if kept is not None:
            return kept

        async def fetch() -> FetchedManifest:
            manifest = await self._shared_by_others(uri) or await self._fetch_and_share(uri)
            self._cache.put(key, manifest)
            return manifest

        return await self._flights.run(key, fetch)

    async def _shared_by_others(self, uri: IpfsUri) -> FetchedManifest | None:
        # A file below a path, or of several blocks, cannot be verified by its bytes alone.
        if self._shared is None or uri.path:
            return None
        manifest = await self._shared.get(uri.cid.text)
        if manifest is None or len(manifest.body) > self._max_bytes or not names_plain_file(uri.cid, manifest.body):
            return None
        return manifest

    async def _fetch_and_share(self, uri: IpfsUri) -> FetchedManifest:
        manifest = await self._gateways.fetch(uri)
        if self._shared is not None and not uri.path and names_plain_file(uri.cid, manifest.body):
            await self._shared.put(uri.cid.text, manifest)
        return manifest

    async def _from_web(self, uri: WebUrl) -> FetchedManifest:
        kept = self._cache.get(uri)
        if kept is not None:
            return kept
        metrics.upstream_asked("web")
        try:
            answer = await self._web.fetch(uri, max_bytes=self._max_bytes, headers=_ACCEPT_JSON)
            self._check(answer)
        except IidqError as fault:
            metrics.upstream_failed("web", fault.code)
            raise
        source = SourceTried(
            "manifest",
            # The query of a redirect is often a signature that grants access: drop it.
            str(answer.url).partition("?")[0] if answer.redirected else redact_url(str(answer.url)),
            sha256_label(answer.body),
            "used",
            "fetched after a redirect" if answer.redirected else "fetched",
        )
        manifest = FetchedManifest(answer.body, None, (source,))
        seconds = 0.0 if answer.redirected else fresh_seconds(answer.headers)
        if seconds:
            self._cache.put(uri, manifest, for_seconds=seconds)
        return manifest

    def _check(self, answer: WebAnswer) -> None:
        peer = answer.url.authority
        if answer.says_absent:
            raise ManifestFault(f"{peer} has no such manifest ({answer.status})", code="manifest.not_found")
        if answer.may_pass:
            raise GatewayFault(
                f"{peer} answered {answer.status}",
                code="fetch.status",
                retry_after_seconds=retry_after_seconds(answer.headers),
            )
        if not answer.delivered:
            raise ManifestFault(f"{peer} answered {answer.status}; expected 200", code="manifest.withheld")
        if not answer.complete:
            raise ManifestFault(f"the manifest is longer than {self._max_bytes} bytes", code="manifest.too_large")


@asynccontextmanager
async def open_manifest_source(
    settings: Settings, shared: SharedManifests | None = None
) -> AsyncIterator[ManifestSource]:
    """Open the source of the settings; close the connections at the end."""
    policy = FetchPolicy.opening(settings.fetch_allow_private)
    source = ManifestSource(
        policy=policy,
        web=WebFetcher(policy),
        gateways=IpfsGateways([Gateway(url) for url in settings.ipfs_gateways], max_bytes=settings.max_manifest_bytes),
        max_bytes=settings.max_manifest_bytes,
        shared=shared,
    )
    try:
        yield source
    finally:
        await source.aclose()
