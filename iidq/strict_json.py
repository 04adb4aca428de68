"""JSON with bounds: documents with a single reading, and values of rows written by plain SQL. Pure.

Python's parser recurses once per level and relies on the interpreter's recursion limit, which any imported library may
raise. A hostile document then ends the process instead of the call. ``pydantic_core.from_json`` bounds the depth too,
but accepts repeated names and fewer than the 500 levels of a row.
"""

import json
import math
import re
from typing import Any, Final, Literal, NoReturn

DEEPEST: Final = 100
"""Levels of nesting that a document may have: manifests need fewer than ten."""
# Half of the levels that Python's parser and encoder bear by default.
_DEEPEST_STORED: Final = 500
# A tenth of a second of work, during which the parser keeps the interpreter's lock.
_MAX_VALUES: Final = 1 << 18
# A string, also an unfinished one, or one bracket. Brackets inside strings do not nest.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)

UNREADABLE: Final = "the stored JSON is nested too deeply, or has a number that is too large"
"""The text in place of a stored value that cannot be read."""

Kind = Literal["not_utf8", "too_deep", "too_complex", "not_json", "duplicate_key"]


class StrictJsonFault(ValueError):
    """A document cannot be read. The message is the end of a sentence about the document."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        """The fault for machines."""


def parse_strictly(body: bytes) -> Any:
    """Return the document's value; raise :class:`StrictJsonFault`.

    Accepted is RFC 8259 without everything that RFC 7493 forbids: UTF-8 without a byte order mark, each member name
    once per object, no NaN or infinity, at most :data:`DEEPEST` levels and 262,144 commas and opening brackets.
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
        return json.loads(text, object_pairs_hook=members_once, parse_constant=_refuse_constant)
    except StrictJsonFault:
        raise
    except json.JSONDecodeError as error:
        raise StrictJsonFault(
            "not_json", f"is not JSON (line {error.lineno}, column {error.colno}); expected a JSON object"
        ) from None
    except ValueError:
        # Python bounds the digits of an integer.
        raise StrictJsonFault("not_json", "holds a number of absurd length") from None


def read_stored_json(document: str | bytes) -> Any:
    """Return the value of a row's JSON, or an object with the reason as its member ``unreadable``.

    A jsonb number may have 130,000 digits, and arrays may be nested thousands of levels deep. One such value must not
    fail the statement that reads other rows as well.
    """
    data = document.encode() if isinstance(document, str) else document
    try:
        if not is_too_deep(data, _DEEPEST_STORED):
            return json.loads(data, parse_float=_finite)
    except ValueError:
        # The integer has more digits than sys.get_int_max_str_digits(), or the float would be infinite.
        pass
    return {"unreadable": UNREADABLE}


def is_too_deep(document: bytes, deepest: int = DEEPEST) -> bool:
    """Return whether arrays and objects are nested more than ``deepest`` levels; the bytes need not be JSON."""
    if document.count(b"[") + document.count(b"{") <= deepest:
        return False
    depth = 0
    for token in _TOKEN.finditer(document):
        match token[0]:
            case b"[" | b"{":
                depth += 1
                if depth > deepest:
                    return True
            case b"]" | b"}":
                depth -= 1
    return False


def members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members; raise :class:`StrictJsonFault` for a repeated name. An ``object_pairs_hook``."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJsonFault("duplicate_key", "repeats a member's name in one object; expected each once")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise StrictJsonFault("not_json", f"holds {name}, which is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number
