"""Choose a job's chain, and the operator's endpoint through which it may be read."""

from functools import lru_cache
from hashlib import scrypt

import httpx

from iidq.errors import FetchRefused, PermanentFault, RpcFault, SettingsFault
from iidq.observability.redaction import redact_endpoint
from iidq.provenance.ethereum.chain import Chain
from iidq.provenance.ethereum.rpc import RpcEndpoint
from iidq.settings import Settings

# The longest restart of all workers, during which another worker may have an endpoint that this one lacks.
_RESTART_SECONDS = 30.0


class Chains:
    """The configured chains, opened on first use; jobs of one chain share its endpoints' health."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._http = http
        self._endpoints: dict[str, RpcEndpoint] = {}
        self._chains: list[Chain] = []
        self._by_url: dict[str, Chain] = {}
        self._by_id: dict[int, Chain] = {}
        self._default: Chain | None = None

    async def choose(self, rpc_url: str | None, chain_id: int | None, endpoint_id: str | None = None) -> Chain:
        """Return a job's chain.

        ``rpc_url`` must be an allowed endpoint and takes precedence; ``endpoint_id`` identifies the endpoint, and
        ``chain_id`` must match. Without both, the chain of ``RPC_URL`` is meant, with the fallbacks ``RPC_URLS_<id>``:
        from the start if ``RPC_URL`` is also listed there, else after the first read of the chain id.

        Raises :class:`FetchRefused` for a URL that is not allowed, :class:`PermanentFault` for a chain that the
        operator has not configured, :class:`RpcFault` while a needed chain id cannot be read.
        """
        if rpc_url is not None:
            return await self._chain_at(find_endpoint(self._settings, rpc_url, endpoint_id), chain_id)
        if chain_id is None:
            return await self._default_chain()
        if chain_id in self._by_id:
            return self._by_id[chain_id]
        if chain_id in self._settings.rpc_urls:
            return self._chain(chain_id, self._settings.rpc_urls[chain_id])
        default = await self._default_chain() if self._settings.rpc_url else None
        if default is None or default.chain_id != chain_id:
            raise PermanentFault(f"this service has no endpoint for chain {chain_id}", code="rpc.chain_not_configured")
        return default

    async def aclose(self) -> None:
        """Cancel every call."""
        for chain in self._chains:
            await chain.aclose()
        for endpoint in self._endpoints.values():
            await endpoint.aclose()

    async def _chain_at(self, url: str, chain_id: int | None) -> Chain:
        if chain_id is not None and (actual := await self._endpoint(url).chain_id()) != chain_id:
            raise PermanentFault(f"rpcUrl is on chain {actual}, not {chain_id}", code="rpc.chain_mismatch")
        if url not in self._by_url:
            self._by_url[url] = self._new_chain(None, (url,))
        return self._by_url[url]

    async def _default_chain(self) -> Chain:
        if self._default is None:
            url = self._settings.rpc_url
            if url is None:
                raise SettingsFault("RPC_URL is not set; expected an Ethereum JSON-RPC endpoint")
            listed = (id_ for id_, urls in self._settings.rpc_urls.items() if _is_among(url, urls))
            chain_id = next(listed, None)
            if chain_id is None:
                # A guess from the fallbacks could judge a job by another chain's registry.
                chain_id = await self._endpoint(url).chain_id()
            if self._default is None:  # a concurrent job may have set it
                self._by_id.pop(chain_id, None)
                self._default = self._chain(chain_id, (url, *self._settings.rpc_urls.get(chain_id, ())))
        return self._default

    def _chain(self, chain_id: int, urls: tuple[str, ...]) -> Chain:
        if chain_id not in self._by_id:
            self._by_id[chain_id] = self._new_chain(chain_id, urls)
        return self._by_id[chain_id]

    def _new_chain(self, chain_id: int | None, urls: tuple[str, ...]) -> Chain:
        chain = Chain(
            [self._endpoint(url) for url in dict.fromkeys(urls)],
            chain_id=chain_id,
            tag=self._settings.rpc_block_tag,
            start_block=self._settings.registry_start_block or 0,
        )
        self._chains.append(chain)
        return chain

    def _endpoint(self, url: str) -> RpcEndpoint:
        if url not in self._endpoints:
            self._endpoints[url] = RpcEndpoint(url, self._http)
        return self._endpoints[url]


def _is_among(url: str, urls: tuple[str, ...]) -> bool:
    return url.rstrip("/") in {listed.rstrip("/") for listed in urls}


def check_rpc_url(settings: Settings, url: str) -> str:
    """Return the operator's URL for ``url``; raise :class:`FetchRefused` if none or several match.

    Allowed are the configured endpoints and ``RPC_ALLOWED_URLS``, with or without a final slash. A URL without
    credentials, as in replies, is accepted if a single endpoint has the same form.
    """
    wanted = url.rstrip("/")
    allowed = _allowed(settings)
    if wanted in allowed:
        return allowed[wanted]
    matches = [known for plain, known in allowed.items() if wanted == redact_endpoint(plain)]
    if len(matches) > 1:
        raise FetchRefused(
            "rpcUrl matches several endpoints of this service; expected one with its credentials",
            code="fetch.refused.rpc_url",
        )
    if not matches:
        raise FetchRefused("rpcUrl is none of the endpoints that this service may use", code="fetch.refused.rpc_url")
    return matches[0]


def find_endpoint(settings: Settings, rpc_url: str, endpoint_id: str | None) -> str:
    """Return the operator's URL with ``endpoint_id``; a similar URL is never taken in its place.

    Without an id (rows of plain SQL) as :func:`check_rpc_url`. Raises :class:`FetchRefused`, and :class:`RpcFault` for
    an unknown id.
    """
    if endpoint_id is None:
        return check_rpc_url(settings, rpc_url)
    shown = redact_endpoint(rpc_url.rstrip("/"))
    # Likely matches first: each digest takes some milliseconds.
    for plain, known in sorted(_allowed(settings).items(), key=lambda entry: redact_endpoint(entry[0]) != shown):
        if identify_endpoint(plain) == endpoint_id:
            return known
    raise RpcFault(
        "the endpoint of the job's rpcUrl is not configured in this worker; "
        "give the API and all workers the same RPC variables",
        code="rpc.endpoint_not_configured",
        retry_after_seconds=_RESTART_SECONDS,
    )


@lru_cache(maxsize=1024)
def identify_endpoint(url: str) -> str:
    """Return an id of the endpoint with its credentials, equal in every process.

    The id is stored in rows with many readers. scrypt, unlike a plain hash, prevents guessing short credentials.
    """
    plain = url.rstrip("/")
    salt = f"iidq rpcUrl {redact_endpoint(plain)}".encode()
    return scrypt(plain.encode(), salt=salt, n=1 << 12, r=8, p=1, dklen=16).hex()


def _allowed(settings: Settings) -> dict[str, str]:
    """Return the allowed URLs by their form without a final slash; of two spellings the first."""
    configured = [settings.rpc_url] if settings.rpc_url else []
    for urls in settings.rpc_urls.values():
        configured += urls
    allowed: dict[str, str] = {}
    for url in (*configured, *settings.rpc_allowed_urls):
        allowed.setdefault(url.rstrip("/"), url)
    return allowed
