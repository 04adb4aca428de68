"""What every reply tells a browser not to do with it. Pure.

These fit JSON: nothing in it is to be run, framed or guessed at. A reply that is a page sets its own policy, which
stands instead.
"""

from collections.abc import Iterable, Sequence
from typing import Final

RawHeader = tuple[bytes, bytes]

SECURITY_HEADERS: Final[Sequence[RawHeader]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    # Of requests with CORS this says nothing; it keeps other sites from embedding a reply as image or script.
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NAMES: Final = frozenset(name for name, _ in SECURITY_HEADERS)


def security_headers(own: Iterable[RawHeader]) -> Sequence[RawHeader]:
    """Those that the reply has not set itself; names in lower case."""
    already = _NAMES.intersection([name for name, _ in own])
    return [header for header in SECURITY_HEADERS if header[0] not in already] if already else SECURITY_HEADERS
