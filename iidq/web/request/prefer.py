"""The ``Prefer`` header (RFC 7240): whether a client would rather wait for the job, or not wait at all. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_WAIT_SECONDS: Final = 60
"""A longer wait is lowered to this; connections that idle for longer are cut by many a proxy."""

_PREFERENCE = re.compile(
    r"""[\s,]*
    (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)
    (?:\s*=\s*(?P<value>"(?:[^"\\]|\\.)*"|[!#$%&'*+.^_`|~0-9A-Za-z-]+))?
    \s*(?:;[^,";]*(?:"(?:[^"\\]|\\.)*"[^,";]*)*)*
    (?:,|$)""",
    re.VERBOSE,
)
_SECONDS = re.compile(r"[0-9]{1,9}")
_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client prefers, as far as we can honour it. ``wait_seconds`` is at most :data:`MAX_WAIT_SECONDS`."""

    wait_seconds: int | None = None
    respond_async: bool = False

    @property
    def applied(self) -> str:
        """The value of ``Preference-Applied`` (RFC 7240, section 3) once all of these were honoured."""
        wait = [] if self.wait_seconds is None else [f"wait={self.wait_seconds}"]
        return ", ".join((["respond-async"] if self.respond_async else []) + wait)


NO_PREFERENCES: Final = Preferences()


def parse_prefer(fields: Sequence[str]) -> Preferences:
    """Read all ``Prefer`` fields of a request.

    What is unknown or malformed is ignored; of a preference that stands twice the first counts (RFC 7240, section 2).
    """
    text = ",".join(fields)
    if not text or len(text) > _MAX_LENGTH:
        return NO_PREFERENCES
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PREFERENCE.match(text, position)
        if match is None:
            # Past what cannot be read: the next preference, if any.
            position = text.find(",", position) + 1 or len(text)
            continue
        found.setdefault(match["name"].lower(), (match["value"] or "").strip('"'))
        position = match.end()
    wait = found.get("wait", "")
    return Preferences(
        wait_seconds=min(int(wait), MAX_WAIT_SECONDS) if _SECONDS.fullmatch(wait) else None,
        respond_async=found.get("respond-async") == "",
    )
