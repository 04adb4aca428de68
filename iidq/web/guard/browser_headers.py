"""Headers for browsers: CORS for pages of other origins, and security headers of every reply. Pure.

By default all pages may read replies, as in the replaced system. Credentials are never allowed, because cookies play no
part in the API. Pages send the API key in a header.

Reading and submitting are open to the pages allowed by the settings. Changes of the queue need more without
``API_KEY``, because a form of any page can send changes: only the service's pages and named origins are accepted.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from starlette.responses import Response

from iidq.web.reply.wire import RawHeader

EXPOSED: Final = (
    "Location",
    "Retry-After",
    "ETag",
    "Link",
    "Preference-Applied",
    "X-Correlation-ID",
    "RateLimit",
    "RateLimit-Policy",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)
"""Reply headers that a page's script may read."""

_METHODS: Final = "GET, HEAD, POST, OPTIONS"
_PREFLIGHT_SECONDS: Final = 600
# A list of field names (RFC 9110, section 5.1).
_FIELD_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")
_ANY: Final = "*"
NO_ORIGIN: Final = "none"
"""Value of ``CORS_ORIGINS`` that allows no origin."""
_VARY: Final = (b"vary", b"Origin")


class CrossOrigin:
    """CORS headers under ``CORS_ORIGINS``."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = _ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins if origin != NO_ORIGIN)
        self._named = self._origins - {_ANY.encode()}
        self._exposed = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
        self._for_any = ((b"access-control-allow-origin", b"*"), self._exposed)

    def headers(self, origin: bytes | None) -> Sequence[RawHeader]:
        """Return the headers of every reply to ``origin`` (None: no browser, or the API's own pages)."""
        if self._any:
            return self._for_any
        if not self._origins:
            return ()
        if origin is None or origin not in self._origins:
            return (_VARY,)
        return ((b"access-control-allow-origin", origin), self._exposed, _VARY)

    def may_change(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether the request comes from no page, from our own, or from an origin named in the settings."""
        return is_own_page(headers) or headers.get(b"origin") in self._named

    def preflight(self, headers: Mapping[bytes, bytes]) -> Response | None:
        """Return the reply to a preflight (Fetch, section 4.8), or None for any other OPTIONS request.

        ``headers`` adds the allowed origin; this reply lists the allowed methods and fields.
        """
        if b"origin" not in headers or b"access-control-request-method" not in headers:
            return None
        reply = Response(status_code=204)
        if not self._any and headers[b"origin"] not in self._origins:
            return reply
        reply.headers["Access-Control-Allow-Methods"] = _METHODS
        reply.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
        fields = headers.get(b"access-control-request-headers", b"")
        if _FIELD_NAMES.fullmatch(fields):
            reply.headers["Access-Control-Allow-Headers"] = fields.decode()
            reply.headers["Vary"] = "Access-Control-Request-Headers"
        return reply


def is_own_page(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the request comes from our own page, or from no page; names in lower case.

    Browsers send Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), but only to https and loopback addresses.
    Without it ``Origin`` must name the request's host.
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    if origin is None:
        return True
    host = origin.lower().partition(b"://")[2]
    return host != b"" and host == headers.get(b"host", b"").lower()


SECURITY_HEADERS: Final[Sequence[RawHeader]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    # Keeps other sites from embedding a reply as image or script; requests with CORS are not affected.
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers for JSON, which must not be run, framed or sniffed; a page sets its own policy instead."""
_SECURITY_NAMES: Final = frozenset(name for name, _ in SECURITY_HEADERS)


def security_headers(own: Iterable[RawHeader]) -> Sequence[RawHeader]:
    """Return the security headers that are not among the reply's ``own``; names in lower case."""
    present = _SECURITY_NAMES.intersection([name for name, _ in own])
    return [header for header in SECURITY_HEADERS if header[0] not in present] if present else SECURITY_HEADERS
