"""JSON that can be read in one way only (RFC 8259, with what RFC 7493 forbids); anything else is refused. Pure."""

import json
from typing import Any, Final, Literal, NoReturn

from iidq.json_depth import is_too_deep

Kind = Literal["not_utf8", "too_deep", "too_complex", "not_json", "duplicate_key"]

# A tenth of a second of work, during which the parser keeps the interpreter's lock.
_MAX_VALUES: Final = 1 << 18


class StrictJsonFault(ValueError):
    """What keeps a document from being read, as the end of a sentence about it, and its ``kind`` for machines."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind


def parse_strictly(body: bytes) -> Any:
    """Return the document's value; raise :class:`StrictJsonFault`.

    UTF-8 without a byte order mark; member names once each (RFC 8259 leaves repeated ones open, so two readers could
    differ); no NaN or infinities; nested no deeper than :data:`iidq.json_depth.DEEPEST`; at most 262,144 values, where
    commas and brackets inside strings count as well.
    """
    if body.startswith(b"\xef\xbb\xbf"):
        raise StrictJsonFault("not_utf8", "begins with a byte order mark; expected plain UTF-8")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonFault("not_utf8", f"is not UTF-8 (byte {error.start}); expected JSON in UTF-8") from None
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise StrictJsonFault("too_complex", f"has more than {_MAX_VALUES:,} commas and opening brackets")
    if is_too_deep(body):
        raise StrictJsonFault("too_deep", "is nested too deeply")
    try:
        return json.loads(text, object_pairs_hook=_members_once, parse_constant=_refuse_constant)
    except StrictJsonFault:
        raise
    except json.JSONDecodeError as error:
        raise StrictJsonFault(
            "not_json", f"is not JSON (line {error.lineno}, column {error.colno}); expected a JSON object"
        ) from None
    except ValueError:
        # Python's bound on the digits of an integer.
        raise StrictJsonFault("not_json", "holds a number of absurd length") from None


def _members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJsonFault("duplicate_key", "repeats a member's name in one object; expected each once")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise StrictJsonFault("not_json", f"holds {name}, which is not JSON")
