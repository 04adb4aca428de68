"""Who may call what: nobody needs a key to submit and read, unless ``API_KEY_SCOPE=all`` asks for it everywhere."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from iidq.settings import Settings
from iidq.web.wire import JsonReply

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


class KeyEverywhere:
    """Asks for the key on every path but health: ``API_KEY_SCOPE=all``."""

    def __init__(self, app: ASGIApp, api_key: ApiKey) -> None:
        self._app = app
        self._api_key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer 401."""
        open_to_all = scope["type"] != "http" or scope["path"] in OPEN_PATHS
        if open_to_all or self._api_key.admits(Headers(scope=scope)):
            await self._app(scope, receive, send)
        else:
            await unauthorized()(scope, receive, send)


def unauthorized() -> JsonReply:
    """401, with the challenge that RFC 9110 asks for."""
    return JsonReply({"error": "Unauthorized"}, 401, headers={"WWW-Authenticate": "Bearer"})
