"""Server-sent events out of a stream's bytes (HTML standard, section 9.2.6). Pure.

httpx-sse would do the same, but bounds neither a line nor an event.
"""

import re
from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 16 << 20
# Not str.splitlines: U+2028 and others end no line here, and JSON may contain them.
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """One event: its name (``message`` where it has none) and its data."""

    name: str
    data: str


class EventStreamTooLong(ValueError):
    """An event that does not end."""


class EventStreamReader:
    """Takes a stream's chunks as they come, and gives the events that they complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in ``chunk``; raises :class:`EventStreamTooLong`."""
        text = self._rest + chunk
        # A final CR may be the first half of CRLF.
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(text[: len(text) - len(held)])
        self._rest = rest + held
        events = [event for line in lines if (event := self._take(line)) is not None]
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise EventStreamTooLong(f"an event has more than {MAX_EVENT_BYTES} bytes")
        return events

    def _take(self, line: bytes) -> Event | None:
        self._size += len(line)
        if not line:
            event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data, self._size = "", [], 0
            return event
        field, _, value = line.decode("utf-8", errors="replace").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        # A line that begins with a colon is a comment, other fields are about reconnecting.
        return None
