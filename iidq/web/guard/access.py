"""Who may call what: nobody needs a key to submit and read, unless ``API_KEY_SCOPE=all`` asks for it everywhere."""

import hmac
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from iidq.settings import Settings
from iidq.web.reply.wire import JsonReply
from iidq.web.request_context import exchange_of

Endpoint = Callable[[Request], Awaitable[Response]]

OPEN_PATHS = frozenset({"/livez", "/readyz", "/api/health"})
"""Health is open to everyone: probes carry no keys."""


class ApiKey:
    """The service's key, compared in constant time; without a key in the settings everyone is let in."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.api_key.get_secret_value().encode() if settings.api_key else None

    def admits(self, headers: Headers) -> bool:
        """Whether ``x-api-key`` or ``Authorization: Bearer`` carries the key."""
        if self._key is None:
            return True
        return any(hmac.compare_digest(candidate, self._key) for candidate in presented_keys(headers))


def presented_keys(headers: Headers) -> list[bytes]:
    """What the caller shows as a key, right or wrong: ``x-api-key``, then ``Authorization: Bearer``."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    shown = [headers.get("x-api-key", ""), token.strip() if scheme.lower() == "bearer" else ""]
    # Header texts are Latin-1 by HTTP.
    return [key.encode("latin-1") for key in shown if key]


def with_key(endpoint: Endpoint) -> Endpoint:
    """Only for whoever presents the key, where one is set; 401 to others, before their body is read."""

    async def guarded(request: Request) -> Response:
        return await endpoint(request) if exchange_of(request).may_operate else unauthorized()

    return guarded


def unauthorized() -> JsonReply:
    """401, with the challenge that RFC 9110 asks for."""
    return JsonReply({"error": "Unauthorized"}, 401, headers={"WWW-Authenticate": "Bearer"})
