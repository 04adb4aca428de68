"""Several gateways raced for one file: the second starts after a delay, the first verified answer wins."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from iidq.concurrency.circuit_breaker import UNAVAILABLE_STRAIN, WRONG_ANSWER_STRAIN, CircuitBreaker
from iidq.errors import FetchRefused, GatewayFault, ManifestFault
from iidq.guarded_http.dialing import Resolve
from iidq.guarded_http.fetch import WebFetcher
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.http_connection import Deadlines
from iidq.guarded_http.uri import IpfsUri
from iidq.observability import metrics
from iidq.provenance.ipfs.gateway import GatewayAddress, NotHere, WrongBytes, retrieve
from iidq.provenance.report import FetchedManifest, SourceResult, SourceTried

HEDGE_DELAY_SECONDS = 1.0
GATEWAY_DEADLINES = Deadlines(first_byte_seconds=20, idle_seconds=5, total_seconds=30)
_MAX_IDLE_CONNECTIONS = 64


class Gateway:
    """One of the operator's gateways, with its connections and its health.

    The operator may have placed it in a private network; its redirects lead only back to its own host or to
    public addresses.
    """

    def __init__(self, url: str, *, deadlines: Deadlines = GATEWAY_DEADLINES, resolve: Resolve | None = None) -> None:
        self.address = GatewayAddress.parse(url)
        self.health = CircuitBreaker()
        self.fetcher = WebFetcher(
            FetchPolicy(hosts=frozenset({self.address.base.host})),
            deadlines=deadlines,
            resolve=resolve,
            max_idle_connections=_MAX_IDLE_CONNECTIONS,
        )


@dataclass(slots=True)
class _Attempt:
    gateway: Gateway
    task: asyncio.Task[bytes]
    started: float
    fault: GatewayFault | FetchRefused | None = None


class IpfsGateways:
    """The operator's gateways in their order of preference."""

    def __init__(self, gateways: Sequence[Gateway], *, max_bytes: int, hedge_seconds: float = HEDGE_DELAY_SECONDS):
        self._gateways = tuple(gateways)
        self._max_bytes = max_bytes
        self._hedge_seconds = hedge_seconds

    async def fetch(self, uri: IpfsUri) -> FetchedManifest:
        """The file, from the first gateway whose bytes the CID proves.

        Raises :class:`ManifestFault` when verified blocks prove that there is no such manifest or when every
        gateway says 404, :class:`FetchRefused` when every gateway's answer broke a rule, and otherwise
        :class:`GatewayFault` with the earliest ``Retry-After`` of any gateway.
        """
        waiting = self._askable()
        attempts: list[_Attempt] = []
        try:
            while True:
                running = {attempt.task for attempt in attempts if attempt.fault is None}
                if not running and not waiting:
                    raise self._verdict(uri, attempts)
                if waiting and not running:
                    attempts.append(self._start(waiting.pop(0), uri))
                    continue
                await asyncio.wait(
                    running,
                    timeout=self._hedge_seconds if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                ended = [attempt for attempt in attempts if attempt.fault is None and attempt.task.done()]
                winners = [attempt for attempt in ended if self._settle(attempt)]
                if winners:
                    return self._won(winners[0], attempts, uri)
                if waiting:
                    attempts.append(self._start(waiting.pop(0), uri))
        finally:
            await _stop(attempts)

    async def aclose(self) -> None:
        """Close the connections that are kept open."""
        for gateway in self._gateways:
            await gateway.fetcher.aclose()

    def _askable(self) -> list[Gateway]:
        patient = [gateway for gateway in self._gateways if not gateway.health.patience_seconds]
        if not patient:
            raise GatewayFault(
                "every IPFS gateway asked to be left alone for a while",
                retry_after_seconds=min(gateway.health.patience_seconds for gateway in self._gateways),
            )
        # When all breakers are open, asking is better than failing unasked.
        return [gateway for gateway in patient if not gateway.health.rests()] or patient

    def _start(self, gateway: Gateway, uri: IpfsUri) -> _Attempt:
        gateway.health.asked()
        metrics.upstream_asked("gateway")
        retrieval = retrieve(gateway.fetcher, gateway.address, uri, max_bytes=self._max_bytes)
        return _Attempt(gateway, asyncio.create_task(retrieval), monotonic())

    def _settle(self, attempt: _Attempt) -> bool:
        """Whether the attempt won; raises :class:`ManifestFault` if it proved that nobody can."""
        health = attempt.gateway.health
        try:
            attempt.task.result()
        except NotHere as fault:
            attempt.fault = fault
            health.succeeded()
        except (WrongBytes, FetchRefused) as fault:
            attempt.fault = fault
            health.failed(WRONG_ANSWER_STRAIN)
        except GatewayFault as fault:
            attempt.fault = fault
            health.failed(UNAVAILABLE_STRAIN, retry_after_seconds=fault.retry_after_seconds)
        except ManifestFault:
            health.succeeded()
            raise
        else:
            health.succeeded()
            return True
        metrics.upstream_failed("gateway", attempt.fault.code)
        return False

    def _won(self, winner: _Attempt, attempts: Sequence[_Attempt], uri: IpfsUri) -> FetchedManifest:
        for attempt in attempts:
            # Who had a head start of a hedging delay and still lost is as good as unavailable.
            if attempt.fault is None and attempt.started < winner.started:
                attempt.gateway.health.failed(UNAVAILABLE_STRAIN)
        body = winner.task.result()
        return FetchedManifest(body, True, tuple(_source(attempt, winner, uri) for attempt in attempts))

    def _verdict(self, uri: IpfsUri, attempts: Sequence[_Attempt]) -> ManifestFault | FetchRefused | GatewayFault:
        faults = [attempt.fault for attempt in attempts if attempt.fault is not None]
        told = "; ".join(fault.message for fault in faults)
        if len(faults) == len(self._gateways):
            if all(isinstance(fault, NotHere) for fault in faults):
                return ManifestFault(f"no gateway has {uri}: {told}", code="manifest.not_found")
            if all(isinstance(fault, FetchRefused) for fault in faults):
                return FetchRefused(told, code=faults[0].code)
        asked = {id(attempt.gateway) for attempt in attempts}
        wishes = [fault.retry_after_seconds for fault in faults if isinstance(fault, GatewayFault)]
        # A gateway that was left alone has an earlier wish, or none.
        wishes += [gateway.health.patience_seconds or None for gateway in self._gateways if id(gateway) not in asked]
        return GatewayFault(
            f"no gateway delivered {uri}: {told}",
            code="fetch.wrong_bytes" if all(isinstance(fault, WrongBytes) for fault in faults) else None,
            retry_after_seconds=min((wish for wish in wishes if wish is not None), default=None),
        )


def _source(attempt: _Attempt, winner: _Attempt, uri: IpfsUri) -> SourceTried:
    url = attempt.gateway.address.shown_url_of(uri)
    if attempt is winner:
        digest = f"sha256:{hashlib.sha256(attempt.task.result()).hexdigest()}"
        return SourceTried("manifest", url, digest, "used", "bytes proven by the CID")
    fault = attempt.fault
    if fault is None:
        return SourceTried("manifest", url, None, "failed", "given up: another gateway was faster")
    if isinstance(fault, WrongBytes):
        return SourceTried("manifest", url, fault.digest, "mismatched", fault.message)
    outcome: SourceResult = "refused" if isinstance(fault, FetchRefused) else "failed"
    return SourceTried("manifest", url, None, outcome, fault.message)


async def _stop(attempts: Sequence[_Attempt]) -> None:
    for attempt in attempts:
        attempt.task.cancel()
    await asyncio.gather(*(attempt.task for attempt in attempts), return_exceptions=True)
