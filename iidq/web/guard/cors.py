"""Which web pages of other origins may read replies: by default all, as in the replaced system. Pure.

Cookies play no part here, so credentials are never allowed: a page can only ask what anybody can. A page that has the
API key sends it in a header of its own.

Reading and submitting are open to the pages that the settings allow. A change of the queue needs more where no key is
set: a form of any page can send one without asking, so only our own pages and those named by origin may make it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.responses import Response

RawHeader = tuple[bytes, bytes]

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
_VARY: Final = (b"vary", b"Origin")


class CrossOrigin:
    """The headers for browsers under ``CORS_ORIGINS``."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = _ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins if origin != NO_ORIGIN)
        self._named = self._origins - {_ANY.encode()}
        self._exposed = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
        self._for_any = ((b"access-control-allow-origin", b"*"), self._exposed)

    def headers(self, origin: bytes | None) -> Sequence[RawHeader]:
        """What every reply to a request from ``origin`` (None: no browser, or the API's own pages) carries."""
        if self._any:
            return self._for_any
        if not self._origins:
            return ()
        if origin is None or origin not in self._origins:
            return (_VARY,)
        return ((b"access-control-allow-origin", origin), self._exposed, _VARY)

    def may_change(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the request comes from no page, from our own, or from one whose origin the settings name."""
        return is_own_page(headers) or headers.get(b"origin") in self._named

    def preflight(self, headers: Mapping[bytes, bytes]) -> Response | None:
        """The reply to a preflight (Fetch, section 4.8) and None for any other OPTIONS request.

        ``headers`` adds whether the origin is allowed; here stands what it may do.
        """
        if b"origin" not in headers or b"access-control-request-method" not in headers:
            return None
        reply = Response(status_code=204)
        if not self._any and headers[b"origin"] not in self._origins:
            return reply
        reply.headers["Access-Control-Allow-Methods"] = _METHODS
        reply.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
        asked = headers.get(b"access-control-request-headers", b"")
        if _FIELD_NAMES.fullmatch(asked):
            reply.headers["Access-Control-Allow-Headers"] = asked.decode()
            reply.headers["Vary"] = "Access-Control-Request-Headers"
        return reply


def is_own_page(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the request comes from our own page, or from no page at all; names in lower case.

    Browsers say so themselves (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/), but only to https and loopback
    addresses; else ``Origin`` must name the host that was asked.
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    if origin is None:
        return True
    host = origin.lower().partition(b"://")[2]
    return host != b"" and host == headers.get(b"host", b"").lower()
