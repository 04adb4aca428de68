"""Entity tags: how a client says which bytes it has already."""

import re
from hashlib import blake2b

from starlette.requests import Request

from iidq.web.request_context import exchange_of

_ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')


def entity_tag(body: bytes) -> str:
    """A strong tag (RFC 9110, section 8.8.3): equal in every process for equal bytes, and for no others."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def has_seen(request: Request, tag: str) -> bool:
    """Whether ``If-None-Match`` names the tag. Compared weakly: proxies weaken tags (RFC 9110, section 13.1.2)."""
    if b"if-none-match" not in exchange_of(request).headers:
        return False
    asked = request.headers.get("if-none-match")
    return asked is not None and (asked.strip() == "*" or tag in _ENTITY_TAG.findall(asked))
