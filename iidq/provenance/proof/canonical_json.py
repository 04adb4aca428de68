"""Canonical JSON (RFC 8785): the same bytes for the same data. Pure.

Postgres' jsonb changes the order of members and the spelling of numbers; a signature over JSON must depend on neither.
A test compares the package rfc8785, which refuses integers from 2^53 on.
"""

import json
import math
from typing import Any, Final

# RFC 8785, section 3.2.2.3: numbers are IEEE 754 doubles; larger integers are written as the double they become.
_EXACT_INTEGERS: Final = 1 << 53
_PLAIN_DIGITS: Final = 21
_LEAST_PLAIN_EXPONENT: Final = -6


def canonical_json(value: Any) -> bytes:
    """Return the canonical form of a value from :func:`json.loads`.

    Raises :class:`ValueError` for values outside I-JSON (RFC 7493): infinite numbers and NaN, lone surrogates, and
    member names of another type than text.
    """
    return _text(value).encode("utf-8")


def _text(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) <= _EXACT_INTEGERS:
            return str(value)
        case int() | float():
            return _number(_double(value))
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            return f"[{','.join(map(_text, value))}]"
        case dict():
            members = sorted(value.items(), key=lambda member: _utf16(member[0]))
            return "{" + ",".join(f"{_text(name)}:{_text(item)}" for name, item in members) + "}"
        case _:
            raise ValueError(f"{type(value).__name__} is no JSON")


def _utf16(name: Any) -> bytes:
    """Return the sort key of a member name (section 3.2.3): the UTF-16 code units."""
    if not isinstance(name, str):
        raise ValueError("a member's name is no text")
    return name.encode("utf-16-be")


def _double(value: float) -> float:
    try:
        double = float(value)
    except OverflowError:
        double = math.inf
    if not math.isfinite(double):
        raise ValueError("a number is not finite")
    return double


def _number(double: float) -> str:
    """Return the number as ECMAScript's Number::toString, with the shortest digits of Python's ``repr``."""
    if double == 0:
        return "0"
    if double < 0:
        return "-" + _number(-double)
    mantissa, _, exponent = repr(double).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    count = len(digits)
    if count <= point <= _PLAIN_DIGITS:
        return digits + "0" * (point - count)
    if 0 < point <= _PLAIN_DIGITS:
        return f"{digits[:point]}.{digits[point:]}"
    if _LEAST_PLAIN_EXPONENT < point <= 0:
        return "0." + "0" * -point + digits
    sign = "+" if point > 0 else "-"
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{tail}e{sign}{abs(point - 1)}"
