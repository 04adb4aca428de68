"""The line of the access log, formatted by hand: structlog would cost a sixth of a submission.

Both forms equal those of ``logs.py``: a JSON object, or time, level, event and ``name=value`` pairs. Values of clients
(path, method, address) are escaped, so that no request can forge a line or a field. Query string, headers and bodies
are left out. Pure but for the clock.
"""

import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _quoted
from typing import Final

from iidq.observability.redaction import redact_url

EVENT: Final = "request.served"
MAX_PATH_LENGTH: Final = 512
"""A longer path is cut, and ends in ``…``."""

AccessLine = Callable[[str, str, str, str, int, float, str], str]
"""``line(correlation_id, method, path, route, status, duration_ms, client)``, with its line feed."""

_second: tuple[int, str] = (-1, "")


def json_line(
    correlation_id: str, method: str, path: str, route: str, status: int, duration_ms: float, client: str
) -> str:
    """Return the line as a JSON object."""
    return (
        f'{{"correlation_id": {_quoted(correlation_id)}, "client": {_quoted(client)}, "method": {_quoted(method)}, '
        f'"path": {_quoted(_shown_path(path))}, "route": {_quoted(route)}, "status": {status}, '
        f'"duration_ms": {duration_ms:.1f}, "event": "{EVENT}", "level": "info", "timestamp": "{_now()}"}}\n'
    )


def text_line(
    correlation_id: str, method: str, path: str, route: str, status: int, duration_ms: float, client: str
) -> str:
    """Return the line as text; values with special characters are quoted."""
    return (
        f"{_now()} [info     ] {EVENT:<30} client={_plain(client)} correlation_id={_plain(correlation_id)} "
        f"duration_ms={duration_ms:.1f} method={_plain(method)} path={_plain(_shown_path(path))} "
        f"route={_plain(route)} status={status}\n"
    )


def _shown_path(path: str) -> str:
    # A credential needs one of these characters; the search costs more than the rest of the line.
    if "@" in path or "=" in path:
        path = redact_url(path)
    return path if len(path) <= MAX_PATH_LENGTH else path[:MAX_PATH_LENGTH] + "…"


def _plain(text: str) -> str:
    if text.isascii() and text.isprintable() and text and not ('"' in text or " " in text or "=" in text):
        return text
    return _quoted(text)


def _now() -> str:
    """Return the time in ISO 8601, UTC, with microseconds; the seconds are formatted once per second."""
    global _second
    now = time.time()
    whole = int(now)
    if _second[0] != whole:
        _second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
    return f"{_second[1]}.{int((now - whole) * 1e6):06d}Z"
