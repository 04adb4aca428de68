"""Canonical JSON, by the vectors of RFC 8785."""

import json
import math
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from iidq.provenance.proof.canonical_json import canonical_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("bits", "written"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_of_the_rfc(bits: str, written: str) -> None:
    """Numbers are written as in the RFC's appendix B."""
    (double,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(double).decode() == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (1759774786, "1759774786"),
        ((1 << 53) - 1, "9007199254740991"),
        (-(1 << 53), "-9007199254740992"),
        ((1 << 53) + 1, "9007199254740992"),
        ((1 << 64) - 1, "18446744073709552000"),
        (10**21, "1e+21"),
        (1.0, "1"),
        (1e-7, "1e-7"),
        (123456.75, "123456.75"),
    ],
)
def test_integers_are_doubles_too(number: float, written: str) -> None:
    """An integer beyond the exact range of a double is written as other readers of JSON write it."""
    assert canonical_json(number).decode() == written


def test_the_sample_of_the_rfc() -> None:
    """The example of section 3.2 comes out byte for byte."""
    sample = (
        '{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
        '"string":"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/","literals":[null,true,false]}'
    )
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json(json.loads(sample)).decode() == expected


def test_members_are_sorted_by_utf16() -> None:
    """Names are ordered by UTF-16 code units, as in section 3.2.3."""
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    sorted_names = list(json.loads(canonical_json(dict.fromkeys(names, 0))))
    assert sorted_names == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@given(values)
def test_reading_and_writing_again_changes_nothing(value: Any) -> None:
    """The canonical form, parsed and written again, is unchanged, for any order of members."""
    canonical = canonical_json(value)
    assert canonical_json(json.loads(canonical)) == canonical
    assert canonical_json(json.loads(json.dumps(value, indent=2, sort_keys=True))) == canonical


@given(values)
def test_another_implementation_writes_the_same(value: Any) -> None:
    """The package rfc8785 writes the same bytes for every value within its range; it refuses integers from 2^53 on."""
    try:
        expected = rfc8785.dumps(value)
    except rfc8785.IntegerDomainError:
        return
    assert canonical_json(value) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "\ud800", {"\ud800": 1}, {1: 2}, {"a": object()}])
def test_what_is_no_ijson_is_refused(value: Any) -> None:
    """Infinities, lone surrogates and values of Python alone have no canonical form."""
    with pytest.raises(ValueError):
        canonical_json(value)
