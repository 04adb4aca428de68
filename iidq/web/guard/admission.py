"""Who gets in: decided for every request before anything else looks at it, in one place and without waiting.

In this order: is the request's own size bearable, is it a preflight, has this client any request left, does it hold
the key where one is asked for, may its page change the queue. Wrong keys count against the address, so they cannot be
tried without end.
"""

from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from iidq.observability import metrics
from iidq.settings import Settings
from iidq.web.guard.access import OPEN_PATHS, ApiKey, unauthorized
from iidq.web.guard.client_address import ClientAddresses, rate_limited_as
from iidq.web.guard.cors import CrossOrigin
from iidq.web.guard.rate_limits import RateLimits, Verdict, rate_limit_headers
from iidq.web.guard.rate_sharing import SharedClock
from iidq.web.operations.operations_access import guards_itself
from iidq.web.pages import is_open_page
from iidq.web.reply import shapes
from iidq.web.reply.wire import JOBS_PATH, JsonReply
from iidq.web.request_context import Exchange
from iidq.web.routes import docs
from iidq.web.server.lingering_close import UnreadBodies

MAX_TARGET_BYTES: Final = 8192
"""Path and query together; RFC 9110, section 4.1, recommends to take at least 8,000 octets."""

SUBMISSIONS: Final = frozenset(
    {f"{JOBS_PATH}/verify", f"{JOBS_PATH}/proof", f"{JOBS_PATH}/batch", "/api/verify", "/api/proof"}
)
"""A POST to one of these counts as a submission; every other request as a read."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing (RFC 9110, section 9.2.1). Every other request does, unless it is a submission."""
UNLIMITED_PATHS: Final = OPEN_PATHS | {"/metrics"}
"""Probes and scrapers come at a rate of the operator's choosing."""

_OTHER_PAGE: Final = (
    "Forbidden: a page of another origin may not change the queue. Name its origin in CORS_ORIGINS, or set API_KEY and "
    "send the key"
)


class Admission:
    """Refuses a request, or lets it in and notes on its exchange who asks."""

    def __init__(self, settings: Settings) -> None:
        self.limits = RateLimits(settings)
        self.clock = SharedClock()
        self._limited = self.limits.enforced
        self._addresses = ClientAddresses(settings.trusted_proxies)
        self._cross_origin = CrossOrigin(settings.cors_origins)
        self._api_key = ApiKey(settings) if settings.api_key else None
        self._key_everywhere = settings.api_key_scope == "all"

    def refusal(self, scope: Scope, exchange: Exchange) -> ASGIApp | None:
        """The reply that the request gets instead of being served, or None."""
        reply = self._refusal(scope, exchange.headers, exchange)
        return None if reply is None else UnreadBodies(reply)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes], exchange: Exchange) -> Response | None:
        exchange.client_address = self._addresses.of(scope)
        exchange.holds_key = self._api_key is not None and _presents_key(scope, headers, self._api_key)
        exchange.may_operate = self._api_key is None or exchange.holds_key
        exchange.reply_headers.extend(self._cross_origin.headers(headers.get(b"origin")))
        if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            error = f"URI Too Long: expected at most {MAX_TARGET_BYTES} bytes of path and query"
            return JsonReply({"error": error, "correlationId": exchange.correlation_id}, 414)
        if scope["method"] == "OPTIONS" and (preflight := self._cross_origin.preflight(headers)) is not None:
            return preflight
        path = scope["path"]
        if self._limited and path not in UNLIMITED_PATHS:
            kind = "submit" if scope["method"] == "POST" and path in SUBMISSIONS else "read"
            client = rate_limited_as(exchange.client_address)
            verdict = self.limits.admit(kind, client, exchange.holds_key, self.clock.now())
            if verdict is not None:
                exchange.reply_headers.extend(rate_limit_headers(kind, verdict))
                if not verdict.admitted:
                    metrics.rate_limited(kind)
                    return too_many_requests(kind, verdict)
        if self._key_everywhere and not exchange.may_operate and not _asks_for_none(path):
            return unauthorized()
        if (
            # A page that knows the key is no stranger's; without it the endpoints themselves refuse.
            self._api_key is None
            and scope["method"] not in SAFE_METHODS
            and path not in SUBMISSIONS
            and not self._cross_origin.may_change(headers)
        ):
            return JsonReply({"error": _OTHER_PAGE, "correlationId": exchange.correlation_id}, 403)
        return None


def _asks_for_none(path: str) -> bool:
    """Whether a path is open to all, or asks for the key in a way of its own."""
    return path in OPEN_PATHS or is_open_page(path) or guards_itself(path) or docs.guards_itself(path)


def too_many_requests(kind: str, verdict: Verdict) -> JsonReply:
    """429; after ``retryAfter`` seconds the request is admitted, if this client sends no other meanwhile."""
    what = "submissions" if kind == "submit" else "requests"
    body: shapes.TooManyRequests = {
        "error": "Too Many Requests",
        "message": f"Rate limit exceeded: at most {verdict.limit} {what} per minute. Please try again later.",
        "retryAfter": verdict.reset_seconds,
    }
    return JsonReply(body, 429, headers={"Retry-After": str(verdict.reset_seconds)})


def _presents_key(scope: Scope, headers: Mapping[bytes, bytes], api_key: ApiKey) -> bool:
    shown = b"x-api-key" in headers or b"authorization" in headers
    return shown and api_key.admits(Headers(scope=scope))
