"""Values in the one form that every reader takes: text that jsonb can store, and times in ISO 8601. Pure."""

import re
from datetime import UTC, datetime
from typing import Final

# JSON can write NUL and lone surrogates, and the type jsonb of Postgres refuses both.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Return whether a jsonb column can hold this text."""
    return _UNSTORABLE.search(text) is None


def storable_text(text: str) -> str:
    """Return the text with U+FFFD in place of every character that jsonb refuses."""
    return _UNSTORABLE.sub("\ufffd", text)


def iso_milliseconds(moment: datetime) -> str:
    """Return an aware time in UTC as ISO 8601 with milliseconds and ``Z``."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
