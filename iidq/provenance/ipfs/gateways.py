"""The operator's IPFS gateways: a hedged request, won by the first answer with proven bytes."""

from collections.abc import Coroutine, Sequence
from typing import Any

from iidq.concurrency.hedged import HedgedRequest, Race, race
from iidq.errors import FetchRefused, GatewayFault, IidqError, ManifestFault
from iidq.observability import metrics
from iidq.provenance.digest import sha256_label
from iidq.provenance.ipfs.gateway import Gateway, NotHere, WrongBytes
from iidq.provenance.manifest_uri import IpfsUri
from iidq.provenance.report import FetchedManifest, SourceTried

HEDGE_DELAY_SECONDS = 1.0
# Three timeouts, or twelve wrong answers, in a row open a gateway's breaker: a wrong answer costs only a round trip.
_UNAVAILABLE_WEIGHT = 4
_WRONG_ANSWER_WEIGHT = 1


class IpfsGateways:
    """The operator's gateways in order of preference.

    ``max_bytes`` bounds a file. ``hedge_seconds`` is the head start of a gateway before the next one is started.
    """

    def __init__(self, gateways: Sequence[Gateway], *, max_bytes: int, hedge_seconds: float = HEDGE_DELAY_SECONDS):
        self._gateways = tuple(gateways)
        self._max_bytes = max_bytes
        self._hedge_seconds = hedge_seconds

    async def fetch(self, uri: IpfsUri) -> FetchedManifest:
        """Return the file from the first gateway with proven bytes.

        Raises :class:`ManifestFault` if verified blocks prove that there is no such manifest, or if every gateway
        answers 404. Raises :class:`FetchRefused` if every gateway's answer broke a rule. Raises :class:`GatewayFault`
        otherwise, with the earliest ``Retry-After`` of any gateway.
        """
        course = await race(
            self._available(),
            lambda gateway: self._begin(gateway, uri),
            head_start_seconds=self._hedge_seconds,
            losing=(GatewayFault, FetchRefused),
        )
        if course.winner is None:
            raise self._fault(uri, course)
        for attempt in course.overtaken:
            # A gateway that lost despite a head start counts as unavailable.
            attempt.source.health.record_failure(_UNAVAILABLE_WEIGHT)
        sources = tuple(_source(attempt, uri, course) for attempt in course.attempts)
        return FetchedManifest(course.winner.task.result(), True, sources)

    async def aclose(self) -> None:
        """Close the idle connections."""
        for gateway in self._gateways:
            await gateway.fetcher.aclose()

    def _available(self) -> list[Gateway]:
        """Return the gateways to start, in order; raise :class:`GatewayFault` while each has a ``Retry-After``."""
        willing = [gateway for gateway in self._gateways if not gateway.health.retry_after_seconds]
        if not willing:
            raise GatewayFault(
                "every IPFS gateway refuses requests for now (Retry-After)",
                retry_after_seconds=min(gateway.health.retry_after_seconds for gateway in self._gateways),
            )
        # With every breaker open, trying is better than failing without a request.
        return [gateway for gateway in willing if not gateway.health.is_open] or willing

    def _begin(self, gateway: Gateway, uri: IpfsUri) -> Coroutine[Any, Any, bytes]:
        # Recorded before the task runs: no other fetch may start a second probe.
        gateway.health.record_request()
        metrics.upstream_asked("gateway")
        return self._fetch_from(gateway, uri)

    async def _fetch_from(self, gateway: Gateway, uri: IpfsUri) -> bytes:
        """Fetch from one gateway; record the outcome in health and metrics."""
        health = gateway.health
        try:
            body = await gateway.fetch(uri, max_bytes=self._max_bytes)
        except IidqError as fault:
            if isinstance(fault, WrongBytes | FetchRefused):
                health.record_failure(_WRONG_ANSWER_WEIGHT)
            elif isinstance(fault, GatewayFault) and not isinstance(fault, NotHere):
                health.record_failure(_UNAVAILABLE_WEIGHT, retry_after_seconds=fault.retry_after_seconds)
            else:
                health.record_success()
            if not isinstance(fault, ManifestFault):
                metrics.upstream_failed("gateway", fault.code)
            raise
        health.record_success()
        return body

    def _fault(self, uri: IpfsUri, course: Race[Gateway, bytes]) -> ManifestFault | FetchRefused | GatewayFault:
        faults = [attempt.fault for attempt in course.attempts if attempt.fault is not None]
        messages = "; ".join(fault.message for fault in faults)
        if len(faults) == len(self._gateways):
            if all(isinstance(fault, NotHere) for fault in faults):
                return ManifestFault(f"no gateway has {uri}: {messages}", code="manifest.not_found")
            if all(isinstance(fault, FetchRefused) for fault in faults):
                return FetchRefused(messages, code=faults[0].code)
        started = {attempt.source for attempt in course.attempts}
        delays = [fault.retry_after_seconds for fault in faults if isinstance(fault, GatewayFault)]
        delays += [gateway.health.retry_after_seconds or None for gateway in self._gateways if gateway not in started]
        return GatewayFault(
            f"no gateway delivered {uri}: {messages}",
            code="fetch.wrong_bytes" if all(isinstance(fault, WrongBytes) for fault in faults) else None,
            retry_after_seconds=min((delay for delay in delays if delay is not None), default=None),
        )


def _source(attempt: HedgedRequest[Gateway, bytes], uri: IpfsUri, course: Race[Gateway, bytes]) -> SourceTried:
    url = attempt.source.address.shown_url_of(uri)
    match attempt.fault:
        case None if attempt is course.winner:
            digest = sha256_label(attempt.task.result())
            return SourceTried("manifest", url, digest, "used", "bytes proven by the CID")
        case None:
            return SourceTried("manifest", url, None, "failed", "given up: another gateway was faster")
        case WrongBytes() as fault:
            return SourceTried("manifest", url, fault.digest, "mismatched", fault.message)
        case FetchRefused() as fault:
            return SourceTried("manifest", url, None, "refused", fault.message)
        case fault:
            return SourceTried("manifest", url, None, "failed", fault.message)
