"""Who may use the operations page, and from where.

With ``API_KEY`` set: whoever has signed in with it (a session cookie), or sends it as everywhere else. Without: only
whoever calls from this machine, under a loopback name, and through no proxy. A browser is made to do nothing on behalf
of another site: data and changes go to the page's own origin alone, and every change carries the session's CSRF token.
"""

import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal, TypedDict
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from iidq.settings import Settings
from iidq.web.guard.cors import is_own_page
from iidq.web.operations.session import COOKIE, CSRF_HEADER, SESSION_SECONDS, Sessions
from iidq.web.reply.replies import error_reply
from iidq.web.reply.wire import JsonReply
from iidq.web.request_context import exchange_of

OPERATIONS_PATH: Final = "/admin/queues"
_FORWARDING: Final = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
    "via",
)
_LOCAL_NAMES: Final = frozenset({"localhost", "localhost."})

CLOSED: Final = (
    "This service has no API_KEY, so the operations page is open on the machine itself alone: under a loopback address "
    "such as http://127.0.0.1:3001/admin/queues, and through no proxy. Set API_KEY to use it from elsewhere."
)

Endpoint = Callable[[Request], Awaitable[Response]]


def guards_itself(path: str) -> bool:
    """Whether a path is one of the operations page's, which asks for the key in its own way."""
    return path == OPERATIONS_PATH or path.startswith(f"{OPERATIONS_PATH}/")


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's session, and until when it is valid (seconds since 1970)."""

    text: str
    ends_at: float


class OperationsAccess:
    """The rules above, under these settings."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.api_key.get_secret_value().encode() if settings.api_key else b""
        self.kind: Literal["key", "loopback"] = "key" if self._key else "loopback"
        self._sessions = Sessions(self._key)

    def is_closed(self, request: Request) -> bool:
        """Whether nobody may operate from where this request comes."""
        return self.kind == "loopback" and not _is_local(request)

    def admits(self, key: str) -> bool:
        """Whether this is the API key; compared in constant time. Where there is none, nothing has to be known."""
        return not self._key or hmac.compare_digest(key.encode(), self._key)

    def open_session(self) -> Session:
        """A new session."""
        now = time.time()
        return Session(self._sessions.open(now), now + SESSION_SECONDS)

    def session(self, request: Request) -> Session | None:
        """The session that the request's cookie names, while it is valid."""
        text = request.cookies.get(COOKIE, "")
        ends_at = self._sessions.ends_at(text, time.time())
        return None if ends_at is None else Session(text, ends_at)

    def csrf_token(self, session: Session) -> str:
        """What the page sends with every change."""
        return self._sessions.csrf_token(session.text)

    def within(self, endpoint: Endpoint) -> Endpoint:
        """403 from where nobody may operate, and for another site's page; for nobody's eyes else."""

        async def guarded(request: Request) -> Response:
            reply = self._refusal(request) or await endpoint(request)
            reply.headers.setdefault("Cache-Control", "no-store")
            return reply

        return guarded

    def seeing(self, endpoint: Endpoint) -> Endpoint:
        """As :meth:`within`, and 401 for whoever has not signed in where that is asked for."""

        async def guarded(request: Request) -> Response:
            signed_in = self.kind == "loopback" or exchange_of(request).holds_key or self.session(request)
            return await endpoint(request) if signed_in else unauthorized(request)

        return self.within(guarded)

    def changing(self, endpoint: Endpoint) -> Endpoint:
        """As :meth:`seeing`, and 403 without the session's CSRF token, but for who sends the API key itself."""

        async def guarded(request: Request) -> Response:
            if not exchange_of(request).holds_key:
                session, token = self.session(request), request.headers.get(CSRF_HEADER, "")
                if session is None or not self._sessions.is_csrf_token(session.text, token):
                    return error_reply(request, 403, f"{CSRF_HEADER} is missing, or not the token of this session")
            return await endpoint(request)

        return self.seeing(guarded)

    def _refusal(self, request: Request) -> Response | None:
        """403 for whoever cannot become an operator by signing in."""
        if not is_own_page(exchange_of(request).headers):
            return error_reply(request, 403, "Only the operations page itself may ask this")
        # What the API allows to pages of other origins is not allowed here.
        headers = exchange_of(request).reply_headers
        headers[:] = [header for header in headers if not header[0].startswith(b"access-control-")]
        return error_reply(request, 403, CLOSED) if self.is_closed(request) else None


def unauthorized(request: Request) -> JsonReply:
    """401 for the page, which then asks for the key."""
    return error_reply(request, 401, "Sign in with the API key", www_authenticate="Bearer")


def set_session(reply: Response, request: Request, session: Session) -> None:
    """Give the browser its session."""
    reply.set_cookie(COOKIE, session.text, max_age=SESSION_SECONDS, **_cookie_rules(request))


def clear_session(reply: Response, request: Request) -> None:
    """Take the session from the browser."""
    reply.delete_cookie(COOKIE, **_cookie_rules(request))


class _CookieRules(TypedDict):
    path: str
    secure: bool
    httponly: bool
    samesite: Literal["strict"]


def _cookie_rules(request: Request) -> _CookieRules:
    # A proxy that forges this header only keeps its own client from signing in.
    secure = "https" in (request.scope["scheme"], request.headers.get("x-forwarded-proto", "").strip().lower())
    # All of the service, for the API's description takes the session, too (``docs.py``); and nothing else of the host.
    path = exchange_of(request).path_prefix or "/"
    return {"path": path, "secure": secure, "httponly": True, "samesite": "strict"}


def _is_local(request: Request) -> bool:
    """Called from this machine, by a name of it: another name could be a page's, made to resolve to us."""
    if request.client is None or not _is_loopback(request.client.host):
        return False
    if any(name in request.headers for name in _FORWARDING):
        return False
    try:
        name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return False
    return name.lower() in _LOCAL_NAMES or _is_loopback(name)


def _is_loopback(text: str) -> bool:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
