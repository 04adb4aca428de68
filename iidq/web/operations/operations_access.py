"""Access to the operations page: where requests may come from, sessions, and CSRF tokens.

With ``API_KEY`` set, an operator signs in with the key (session cookie) or sends the key in a header. Without a key,
only requests from the same machine are accepted, under a loopback name and through no proxy. Data and changes are
accepted from the page's own origin only, and every change carries the session's CSRF token.

Sessions are signed texts in a cookie; nothing is stored. Any API process with the same ``API_KEY`` verifies sessions
by signature, and a new key ends all sessions. The signing key is derived, so the texts reveal nothing of the API key.
"""

import base64
import binascii
import hmac
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Final, Literal, TypedDict
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from iidq.settings import Settings
from iidq.web.guard.access import Endpoint
from iidq.web.guard.browser_headers import is_own_page
from iidq.web.reply.error_replies import error_reply
from iidq.web.reply.wire import JsonReply
from iidq.web.request_context import context_of

OPERATIONS_PATH: Final = "/admin/queues"
SESSION_SECONDS: Final = 12 * 3600
"""Life of a session."""
COOKIE: Final = "iidq_session"
CSRF_HEADER: Final = "X-CSRF-Token"
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
_NONCE_BYTES: Final = 16
_LONGEST: Final = 200

CLOSED: Final = (
    "This service has no API_KEY, so the operations page is open on the machine itself alone: under a loopback address "
    "such as http://127.0.0.1:3001/admin/queues, and through no proxy. Set API_KEY to use it from elsewhere."
)


def is_operations_path(path: str) -> bool:
    """Return whether a path belongs to the operations page, which checks the key by itself."""
    return path == OPERATIONS_PATH or path.startswith(f"{OPERATIONS_PATH}/")


class Sessions:
    """Create and verify session texts under one API key; without a key, signatures prove nothing. Pure."""

    def __init__(self, api_key: bytes) -> None:
        root = hmac.digest(api_key, b"iidq operations page, version 1", sha256)
        self._session_key = hmac.digest(root, b"session", sha256)
        self._csrf_key = hmac.digest(root, b"csrf", sha256)

    def open(self, now: float) -> str:
        """Return a new session that is valid from ``now`` (seconds since 1970) for ``SESSION_SECONDS``."""
        content = f"{int(now) + SESSION_SECONDS}.{secrets.token_urlsafe(_NONCE_BYTES)}"
        return f"{content}.{_text(self._signature(content))}"

    def ends_at(self, session: str, now: float) -> float | None:
        """Return the end of a valid session (seconds since 1970); None if it is forged or over."""
        content, _, signature = session.rpartition(".")
        if len(session) > _LONGEST or not hmac.compare_digest(_bytes(signature), self._signature(content)):
            return None
        # Without a key, clients can sign any content.
        end = content.partition(".")[0]
        return float(end) if end.isascii() and end.isdigit() and float(end) > now else None

    def csrf_token(self, session: str) -> str:
        """Return the token of a session's changes."""
        return _text(hmac.digest(self._csrf_key, session.encode(), sha256))

    def is_csrf_token(self, session: str, token: str) -> bool:
        """Return whether the token belongs to the session; compared in constant time."""
        return hmac.compare_digest(self.csrf_token(session).encode(), token.encode())

    def _signature(self, content: str) -> bytes:
        return hmac.digest(self._session_key, content.encode(), sha256)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return b""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's session."""

    text: str
    """Value of the cookie."""
    ends_at: float
    """End of validity, in seconds since 1970."""


class OperationsAccess:
    """Rules of access under these settings."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.api_key.get_secret_value().encode() if settings.api_key else b""
        self.kind: Literal["key", "loopback"] = "key" if self._key else "loopback"
        self._sessions = Sessions(self._key)

    def is_closed(self, request: Request) -> bool:
        """Return whether the page is closed to this request's origin in the network."""
        return self.kind == "loopback" and not _is_local(request)

    def admits(self, key: str) -> bool:
        """Return whether this is the API key, compared in constant time; always true without a key."""
        return not self._key or hmac.compare_digest(key.encode(), self._key)

    def open_session(self) -> Session:
        """Return a new session."""
        now = time.time()
        return Session(self._sessions.open(now), now + SESSION_SECONDS)

    def session(self, request: Request) -> Session | None:
        """Return the valid session in the request's cookie, or None."""
        text = request.cookies.get(COOKIE, "")
        ends_at = self._sessions.ends_at(text, time.time())
        return None if ends_at is None else Session(text, ends_at)

    def csrf_token(self, session: Session) -> str:
        """Return the token that the page sends with every change."""
        return self._sessions.csrf_token(session.text)

    def within(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint, uncached, with 403 for other sites' pages and for requests from outside."""

        async def guarded(request: Request) -> Response:
            reply = self._refusal(request) or await endpoint(request)
            reply.headers.setdefault("Cache-Control", "no-store")
            return reply

        return guarded

    def seeing(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint as :meth:`within`, and 401 without a session or key if a key is set."""

        async def guarded(request: Request) -> Response:
            signed_in = self.kind == "loopback" or context_of(request).holds_key or self.session(request)
            return await endpoint(request) if signed_in else sign_in_required(request)

        return self.within(guarded)

    def changing(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint as :meth:`seeing`, and 403 without the session's CSRF token or the API key itself."""

        async def guarded(request: Request) -> Response:
            if not context_of(request).holds_key:
                session, token = self.session(request), request.headers.get(CSRF_HEADER, "")
                if session is None or not self._sessions.is_csrf_token(session.text, token):
                    return error_reply(request, 403, f"{CSRF_HEADER} is missing, or not the token of this session")
            return await endpoint(request)

        return self.seeing(guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Return 403 for requests that no sign-in could allow."""
        if not is_own_page(context_of(request).headers):
            return error_reply(request, 403, "Only the operations page itself may ask this")
        # CORS permissions of the API do not apply here.
        headers = context_of(request).reply_headers
        headers[:] = [header for header in headers if not header[0].startswith(b"access-control-")]
        return error_reply(request, 403, CLOSED) if self.is_closed(request) else None


def sign_in_required(request: Request) -> JsonReply:
    """Return 401; the page then shows its sign-in form."""
    return error_reply(request, 401, "Sign in with the API key", www_authenticate="Bearer")


def set_session(reply: Response, request: Request, session: Session) -> None:
    """Set the session's cookie."""
    reply.set_cookie(COOKIE, session.text, max_age=SESSION_SECONDS, **_cookie_rules(request))


def clear_session(reply: Response, request: Request) -> None:
    """Delete the session's cookie."""
    reply.delete_cookie(COOKIE, **_cookie_rules(request))


class _CookieRules(TypedDict):
    path: str
    secure: bool
    httponly: bool
    samesite: Literal["strict"]


def _cookie_rules(request: Request) -> _CookieRules:
    # A proxy that forges this header only keeps its own client from signing in.
    secure = "https" in (request.scope["scheme"], request.headers.get("x-forwarded-proto", "").strip().lower())
    # The whole service and nothing else on the host: the API's description (``docs.py``) accepts the session, too.
    path = context_of(request).path_prefix or "/"
    return {"path": path, "secure": secure, "httponly": True, "samesite": "strict"}


def _is_local(request: Request) -> bool:
    """Return whether the request comes from the same machine and uses a loopback name."""
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
