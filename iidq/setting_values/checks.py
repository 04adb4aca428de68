"""Short values of settings. Each function returns the value, or raises ValueError with the text expected instead. Pure.

No message quotes a value: a secret can be in any variable by mistake.
"""

import base64
import binascii
import re
from ipaddress import ip_network
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from iidq.notation import CHAIN_ACCOUNT

WEB_URL: Final = "an http:// or https:// URL"
REDIS_USES: Final = ("wakeups", "progress", "jobs", "caches", "limits")
"""Parts of the service that Redis can make faster."""
PATH_PREFIX: Final = (
    "a path such as /iidq: at most 200 letters, digits and . _ ~ : @ + - between single slashes, without . and .. alone"
)
LONGEST_PREFIX: Final = 200
OWN_PATHS: Final = frozenset({
    "/livez", "/readyz", "/metrics",
    *(f"/api/{rest}" for rest in ("verify", "proof", "health", "docs", "docs.json", "docs/style.css")),
    "/api/verification-jobs",
    *(f"/api/verification-jobs/{step}" for step in ("verify", "proof", "batch", "stats", "pause", "resume")),
    *("/admin/queues", "/admin/queues/jobs", "/admin/queues/data/failures/retry"),
    *(f"/admin/queues/data/{rest}" for rest in ("session", "sign-in", "sign-out", "snapshot")),
    *(f"/admin/queues/data/{rest}" for rest in ("jobs", "pause", "resume")),
})  # fmt: skip
"""The routes without an id. Under a prefix of the same name, requests for one would become requests for the root."""
SIGNING_KEYS: Final = "whsec_ and the base64 of 24 to 64 random bytes; several for rotation, separated by spaces"

# As browsers send it: lower case, no path, no default port (RFC 6454, section 6.2).
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_PRIVATE_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")
# SEC 2, section 2.4.1: a key lies between zero and the order of secp256k1's group.
_CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
# None of these characters has a meaning in HTML, in a header or at the start of a URL path.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~:@+-]+)+")
_SEPARATORS = re.compile(r"[\s,]+")
_KEY_PREFIX = "whsec_"
# The bounds of Standard Webhooks for a secret.
_LEAST_KEY_BYTES, _MOST_KEY_BYTES = 24, 64


class ChainAccount(NamedTuple):
    """An account on a chain."""

    chain_id: int | None
    """EIP-155 id of the chain; None: the default chain."""
    address: str
    """``0x`` and 40 hex digits."""


def split_list(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list, without blanks and empty parts."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def web_url(text: str) -> str:
    """Return an ``http`` or ``https`` URL with a host."""
    if not text.lower().startswith(("http://", "https://")):
        raise ValueError(WEB_URL)
    from httpx import URL, InvalidURL

    try:
        _ = urlsplit(text).port
    except ValueError:
        raise ValueError(f"{WEB_URL}; its host or port is malformed") from None
    try:
        host = URL(text).host
    except (InvalidURL, ValueError):
        raise ValueError(f"{WEB_URL}; its host is malformed, or a character of it must be percent-encoded") from None
    if not host:
        raise ValueError(f"{WEB_URL}; its host is missing")
    return text


def gateways(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return at least one base URL of IPFS gateways, without slashes at the end."""
    if not urls:
        raise ValueError("at least one gateway")
    return tuple(url.rstrip("/") for url in urls)


def redis_uses(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of :data:`REDIS_USES`."""
    if set(names) - set(REDIS_USES):
        raise ValueError(f"a comma-separated list of {', '.join(REDIS_USES)}")
    return names


def api_key(key: str) -> str:
    """Return a key that fits into an HTTP header."""
    if not key or not key.isprintable() or key != key.strip():
        raise ValueError("one line of printable characters, without blanks around it")
    return key


def chain_account(text: str) -> ChainAccount:
    """Return the account of an address, or of a CAIP-10 id."""
    match = CHAIN_ACCOUNT.fullmatch(text)
    if match is None:
        raise ValueError("0x and 40 hex digits, or eip155:<chainId>:0x…")
    return ChainAccount(int(match[1]) if match[1] else None, match[2])


def private_key(text: str) -> str:
    """Return a private key of secp256k1 in hex."""
    if not _PRIVATE_KEY.fullmatch(text) or not 0 < int(text, 16) < _CURVE_ORDER:
        raise ValueError("0x and the 64 hex digits of a secp256k1 private key")
    return text


def signing_keys(text: str) -> tuple[bytes, ...]:
    """Return the keys of ``WEBHOOK_SECRET``, the present one first; blanks or commas separate them."""
    keys = tuple(_signing_key(secret) for secret in _SEPARATORS.split(text) if secret)
    if not keys:
        raise ValueError(SIGNING_KEYS)
    return keys


def _signing_key(secret: str) -> bytes:
    if not secret.startswith(_KEY_PREFIX):
        raise ValueError(SIGNING_KEYS)
    try:
        key = base64.b64decode(secret.removeprefix(_KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(SIGNING_KEYS) from None
    if not _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES:
        raise ValueError(SIGNING_KEYS)
    return key


def networks(items: tuple[str, ...]) -> tuple[str, ...]:
    """Return addresses and CIDRs; 10.1.2.3/8 means 10.0.0.0/8."""
    try:
        for item in items:
            ip_network(item, strict=False)
    except ValueError:
        raise ValueError("a comma-separated list of addresses or CIDRs") from None
    return items


def parse_prefix(text: str) -> str:
    """Return ``/iidq`` for that text, for ``iidq`` and for ``/iidq/``; an empty text for ``/``."""
    if text in ("", "/"):
        return ""
    prefix = "/" + text.removeprefix("/").removesuffix("/")
    if len(prefix) > LONGEST_PREFIX or _PATH.fullmatch(prefix) is None:
        raise ValueError(PATH_PREFIX)
    return prefix


def root_path(text: str) -> str:
    """Return a prefix that is none of :data:`OWN_PATHS`."""
    prefix = parse_prefix(text)
    if prefix in OWN_PATHS:
        raise ValueError("a path that is none of the service's own, such as /iidq")
    return prefix


def origins(items: tuple[str, ...]) -> tuple[str, ...]:
    """Return web origins, or ``*`` or ``none`` alone."""
    alone = items in (("*",), ("none",))
    if not items or not (alone or all(_ORIGIN.fullmatch(item) for item in items)):
        raise ValueError("*, none, or a comma-separated list of origins such as https://app.example.org")
    return items
