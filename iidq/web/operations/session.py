"""Sessions of the operations page: a signed text in a cookie, and a token that proves whose a change is. Pure.

Nothing is stored: any API process that has the same ``API_KEY`` knows a session by its signature, and a new key ends
them all. The signing key is derived, so neither text tells anything of the API key.
"""

import base64
import binascii
import hmac
import secrets
from hashlib import sha256
from typing import Final

SESSION_SECONDS: Final = 12 * 3600
COOKIE: Final = "iidq_session"
CSRF_HEADER: Final = "X-CSRF-Token"

_NONCE_BYTES: Final = 16
_LONGEST: Final = 200


class Sessions:
    """Opens and recognises sessions under one API key; without a key the signature proves nothing but its form."""

    def __init__(self, api_key: bytes) -> None:
        root = hmac.digest(api_key, b"iidq operations page, version 1", sha256)
        self._session_key = hmac.digest(root, b"session", sha256)
        self._csrf_key = hmac.digest(root, b"csrf", sha256)

    def open(self, now: float) -> str:
        """A new session from ``now`` (seconds since 1970) for ``SESSION_SECONDS``."""
        content = f"{int(now) + SESSION_SECONDS}.{secrets.token_urlsafe(_NONCE_BYTES)}"
        return f"{content}.{_text(self._signature(content))}"

    def ends_at(self, session: str, now: float) -> float | None:
        """Until when the session is valid; None where it is none of ours, or over."""
        content, _, signature = session.rpartition(".")
        if len(session) > _LONGEST or not hmac.compare_digest(_bytes(signature), self._signature(content)):
            return None
        # Without a key anybody can sign any content.
        end = content.partition(".")[0]
        return float(end) if end.isascii() and end.isdigit() and float(end) > now else None

    def csrf_token(self, session: str) -> str:
        """What the page of this session sends with every change."""
        return _text(hmac.digest(self._csrf_key, session.encode(), sha256))

    def is_csrf_token(self, session: str, token: str) -> bool:
        """Whether the token belongs to the session; compared in constant time."""
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
