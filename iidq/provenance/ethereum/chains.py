"""Which chain a job is about, and through which of the operator's endpoints it may be read."""

import httpx

from iidq.errors import PermanentFault, SettingsFault
from iidq.provenance.ethereum.chain import Chain
from iidq.provenance.ethereum.rpc import RpcEndpoint
from iidq.provenance.ethereum.rpc_permission import find_endpoint
from iidq.settings import Settings


class Chains:
    """Every chain that can be asked, by what a job says of it; one record of health per chain."""

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

        ``rpc_url`` must be allowed and wins, ``endpoint_id`` telling which endpoint it is; ``chain_id`` must then be
        that endpoint's. Neither means the chain of
        ``RPC_URL``, with ``RPC_URLS_<its id>`` as fallbacks as soon as its id is known: from the start if it is
        listed there too. Raises
        :class:`FetchRefused` for a URL that is not allowed, :class:`PermanentFault` for a chain that the operator
        has not configured, :class:`RpcFault` while an endpoint whose id matters cannot be asked.
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
        """Give up every call."""
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
                # Guessing it from the fallbacks would judge a job by another chain's registry.
                chain_id = await self._endpoint(url).chain_id()
            if self._default is None:  # several jobs may have asked
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
