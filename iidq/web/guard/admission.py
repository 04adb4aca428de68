"""Admission: the decision on every request before any other layer, without waiting.

Checks in this order: length of path and query, CORS preflight, rate limit, API key where required everywhere, and
whether the request's web page may change the queue. Wrong keys count against the address, which limits guessing.
"""

from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from iidq.observability import metrics
from iidq.settings import Settings
from iidq.web.guard.access import OPEN_PATHS, ApiKey, unauthorized
from iidq.web.guard.browser_headers import CrossOrigin
from iidq.web.guard.proxies import ClientAddresses, rate_limit_client
from iidq.web.guard.rate_limits import Decision, RateLimits, SharedClock, rate_limit_headers
from iidq.web.operations.operations_access import is_operations_path
from iidq.web.pages import is_open_page
from iidq.web.reply import shapes
from iidq.web.reply.wire import JOBS_PATH, JsonReply
from iidq.web.request_context import RequestContext
from iidq.web.routes.docs import is_docs_path
from iidq.web.server.lingering_close import LingeringClose

MAX_TARGET_BYTES: Final = 8192
"""Path and query together; RFC 9110, section 4.1, recommends at least 8,000 octets."""

SUBMISSIONS: Final = frozenset(
    {f"{JOBS_PATH}/verify", f"{JOBS_PATH}/proof", f"{JOBS_PATH}/batch", "/api/verify", "/api/proof"}
)
"""A POST to one of these counts as a submission; every other request as a read."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1). Every other request does, unless it is a submission."""
UNLIMITED_PATHS: Final = OPEN_PATHS | {"/metrics"}
"""No rate limit, because operators choose the rate of probes and scrapers."""

_OTHER_PAGE: Final = (
    "Forbidden: a page of another origin may not change the queue. Name its origin in CORS_ORIGINS, or set API_KEY and "
    "send the key"
)


class Admission:
    """Refuse or admit requests; note the caller in the context."""

    def __init__(self, settings: Settings) -> None:
        self.limits = RateLimits(settings)
        self.clock = SharedClock()
        self._limited = self.limits.enforced
        self._addresses = ClientAddresses(settings.trusted_proxies)
        self._cross_origin = CrossOrigin(settings.cors_origins)
        self._api_key = ApiKey(settings) if settings.api_key else None
        self._key_everywhere = settings.api_key_scope == "all"

    def refusal(self, scope: Scope, context: RequestContext) -> ASGIApp | None:
        """Return the reply that refuses the request, or None."""
        reply = self._refusal(scope, context.headers, context)
        return None if reply is None else LingeringClose(reply)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes], context: RequestContext) -> Response | None:
        context.client_address = self._addresses.of(scope)
        context.holds_key = self._api_key is not None and _presents_key(scope, headers, self._api_key)
        context.may_operate = self._api_key is None or context.holds_key
        context.reply_headers.extend(self._cross_origin.headers(headers.get(b"origin")))
        if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            error = f"URI Too Long: expected at most {MAX_TARGET_BYTES} bytes of path and query"
            return JsonReply({"error": error, "correlationId": context.correlation_id}, 414)
        if scope["method"] == "OPTIONS" and (preflight := self._cross_origin.preflight(headers)) is not None:
            return preflight
        path = scope["path"]
        if self._limited and path not in UNLIMITED_PATHS:
            kind = "submit" if scope["method"] == "POST" and path in SUBMISSIONS else "read"
            client = rate_limit_client(context.client_address)
            decision = self.limits.admit(kind, client, context.holds_key, self.clock.now())
            if decision is not None:
                context.reply_headers.extend(rate_limit_headers(kind, decision))
                if not decision.admitted:
                    metrics.rate_limited(kind)
                    return too_many_requests(kind, decision)
        if self._key_everywhere and not context.may_operate and not _needs_no_key(path):
            return unauthorized()
        if (
            # With a key set, the endpoints refuse requests without it.
            self._api_key is None
            and scope["method"] not in SAFE_METHODS
            and path not in SUBMISSIONS
            and not self._cross_origin.may_change(headers)
        ):
            return JsonReply({"error": _OTHER_PAGE, "correlationId": context.correlation_id}, 403)
        return None


def _needs_no_key(path: str) -> bool:
    """Return whether a path is open, or checks the key by itself."""
    return path in OPEN_PATHS or is_open_page(path) or is_operations_path(path) or is_docs_path(path)


def too_many_requests(kind: str, decision: Decision) -> JsonReply:
    """Return 429; after ``retryAfter`` seconds the request is admitted if the client sends no other meanwhile."""
    things = "submissions" if kind == "submit" else "requests"
    body: shapes.TooManyRequests = {
        "error": "Too Many Requests",
        "message": f"Rate limit exceeded: at most {decision.limit} {things} per minute. Please try again later.",
        "retryAfter": decision.reset_seconds,
    }
    return JsonReply(body, 429, headers={"Retry-After": str(decision.reset_seconds)})


def _presents_key(scope: Scope, headers: Mapping[bytes, bytes], api_key: ApiKey) -> bool:
    shown = b"x-api-key" in headers or b"authorization" in headers
    return shown and api_key.admits(Headers(scope=scope))
