"""How long an http(s) answer may be reused, by its own headers (RFC 9111, as a shared cache)."""

from collections.abc import Mapping

MAX_FRESH_SECONDS = 60.0

_FORBIDDING = frozenset({"no-store", "no-cache", "private"})


def fresh_seconds(headers: Mapping[str, str]) -> float:
    """Seconds for which the answer may be given to others too, at most a minute; 0 = not at all.

    Without an explicit ``max-age`` or ``s-maxage`` nothing is kept: guessing is for browsers.
    """
    if "*" in headers.get("vary", ""):
        return 0.0
    directives: dict[str, str] = {}
    for part in headers.get("cache-control", "").lower().split(","):
        name, _, value = part.strip().partition("=")
        directives.setdefault(name.strip(), value.strip().strip('"'))
    if _FORBIDDING & directives.keys():
        return 0.0
    lifetime = _seconds(directives.get("s-maxage", directives.get("max-age", "")))
    return min(max(lifetime - _seconds(headers.get("age", "")), 0.0), MAX_FRESH_SECONDS)


def _seconds(text: str) -> float:
    return float(text[:12]) if text.isascii() and text.isdigit() else 0.0
