"""API key checks. Submitting and reading need no key, unless ``API_KEY_SCOPE=all`` requires the key everywhere."""

import hmac
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from iidq.settings import Settings
from iidq.web.reply.wire import JsonReply
from iidq.web.request_context import context_of

Endpoint = Callable[[Request], Awaitable[Response]]

OPEN_PATHS = frozenset({"/livez", "/readyz", "/api/health"})
"""Health needs no key, because probes carry none."""


class ApiKey:
    """The service's key, compared in constant time; without a key every request is admitted."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.api_key.get_secret_value().encode() if settings.api_key else None

    def admits(self, headers: Headers) -> bool:
        """Return whether ``x-api-key`` or ``Authorization: Bearer`` carries the key."""
        if self._key is None:
            return True
        return any(hmac.compare_digest(candidate, self._key) for candidate in presented_keys(headers))


def presented_keys(headers: Headers) -> list[bytes]:
    """Return the keys in a request, right or wrong: ``x-api-key``, then ``Authorization: Bearer``."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    shown = [headers.get("x-api-key", ""), token.strip() if scheme.lower() == "bearer" else ""]
    # Header texts are Latin-1 by HTTP.
    return [key.encode("latin-1") for key in shown if key]


def with_key(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint behind the key, if one is set: 401 without it, before the body is read."""

    async def guarded(request: Request) -> Response:
        return await endpoint(request) if context_of(request).may_operate else unauthorized()

    return guarded


def unauthorized() -> JsonReply:
    """Return 401 with the challenge that RFC 9110 requires."""
    return JsonReply({"error": "Unauthorized"}, 401, headers={"WWW-Authenticate": "Bearer"})
