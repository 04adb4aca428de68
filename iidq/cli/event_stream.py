"""Parse server-sent events from the bytes of a stream (HTML standard, section 9.2.6). Pure.

httpx-sse parses the same, but bounds neither a line nor an event.
"""

import re
from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 16 << 20
# Not str.splitlines: JSON may contain U+2028 and others, which end no line here.
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """A server-sent event."""

    name: str
    """Its ``event`` field; ``message`` if absent."""
    data: str
    """Its ``data`` lines, joined by line feeds."""


class EventStreamTooLong(ValueError):
    """An event has more than :data:`MAX_EVENT_BYTES` bytes."""


class EventStreamReader:
    """Parser of a stream, fed with chunks of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events completed by ``chunk``; raise :class:`EventStreamTooLong`."""
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
        # Comments begin with a colon; the other fields only govern reconnection.
        return None
