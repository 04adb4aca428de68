"""Manifests, read strictly."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import ManifestFault
from iidq.provenance.manifest import parse_manifest

HASH = "0x" + "ab" * 32
GOOD: dict[str, Any] = {"content_hash": HASH, "signature": "0x" + "11" * 65}
VECTOR = Path(__file__).parents[2] / "vectors" / "base-sepolia" / "manifest.json"


def manifest(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value is not ...}).encode()


def test_the_public_vector_is_read() -> None:
    """A published manifest gives its three members unchanged."""
    fields = json.loads(VECTOR.read_bytes())
    read = parse_manifest(VECTOR.read_bytes())
    assert (read.content_hash, read.signature, read.creator_did) == (
        fields["content_hash"],
        fields["signature"],
        fields["creator_did"],
    )


@pytest.mark.parametrize("written", [HASH.upper(), "0x" + "AB" * 32, HASH])
def test_hashes_of_any_case_are_lowered(written: str) -> None:
    """A hash in upper case, prefix included, means the same content."""
    assert parse_manifest(manifest(content_hash=written)).content_hash == HASH


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", "manifest.not_json", id="empty"),
        pytest.param(b"<html></html>", "manifest.not_json", id="HTML"),
        pytest.param(b'{"content_hash":', "manifest.not_json", id="cut short"),
        pytest.param(manifest() + b"{}", "manifest.not_json", id="two values"),
        pytest.param(b'{"a":NaN}', "manifest.not_json", id="NaN"),
        pytest.param(b'{"a":-Infinity}', "manifest.not_json", id="Infinity"),
        pytest.param(b'{"a":' + b"9" * 10_000 + b"}", "manifest.not_json", id="number of 10,000 digits"),
        pytest.param(b"[" * 100_000, "manifest.too_deep", id="deep arrays"),
        pytest.param(b'{"a":' * 100_000, "manifest.too_deep", id="deep objects"),
        pytest.param(b"\xef\xbb\xbf" + manifest(), "manifest.not_utf8", id="byte order mark"),
        pytest.param(manifest().decode().encode("utf-16"), "manifest.not_utf8", id="UTF-16"),
        pytest.param(b'{"a":"\xff"}', "manifest.not_utf8", id="bad UTF-8"),
        pytest.param(b"[" + manifest() + b"]", "manifest.not_object", id="array"),
        pytest.param(b'"text"', "manifest.not_object", id="string"),
        pytest.param(b"null", "manifest.not_object", id="null"),
        pytest.param(b"1", "manifest.not_object", id="number"),
        pytest.param(b'{"a":1,"a":1}', "manifest.duplicate_key", id="repeated member"),
        pytest.param(b'{"x":{"a":1,"a":2}}', "manifest.duplicate_key", id="repeated member inside"),
        pytest.param(manifest(content_hash=...), "manifest.content_hash", id="no hash"),
        pytest.param(manifest(content_hash=None), "manifest.content_hash", id="null hash"),
        pytest.param(manifest(content_hash=5), "manifest.content_hash", id="hash as number"),
        pytest.param(manifest(content_hash=[HASH]), "manifest.content_hash", id="hash as array"),
        pytest.param(manifest(content_hash="ab" * 32), "manifest.content_hash", id="unprefixed hash"),
        pytest.param(manifest(content_hash=HASH[:-1]), "manifest.content_hash", id="short hash"),
        pytest.param(manifest(content_hash=HASH + "0"), "manifest.content_hash", id="long hash"),
        pytest.param(manifest(content_hash=HASH + "\n"), "manifest.content_hash", id="hash and line break"),
        pytest.param(manifest(content_hash=" " + HASH), "manifest.content_hash", id="space and hash"),
        pytest.param(manifest(content_hash="0x" + "g" * 64), "manifest.content_hash", id="no hex"),
        pytest.param(manifest(content_hash="0x" + "１" * 64), "manifest.content_hash", id="fullwidth digits"),
        pytest.param(manifest(content_hash="x" * 900_000), "manifest.content_hash", id="very long string"),
        pytest.param(manifest(signature=...), "manifest.signature", id="no signature"),
        pytest.param(manifest(signature=True), "manifest.signature", id="signature as boolean"),
        pytest.param(manifest(signature={}), "manifest.signature", id="signature as object"),
        pytest.param(manifest(signature="11" * 65), "manifest.signature", id="unprefixed signature"),
        pytest.param(manifest(signature="0x1"), "manifest.signature", id="half a byte"),
        pytest.param(manifest(signature="0x" + "11" * 20_000), "manifest.signature", id="very long signature"),
        pytest.param(manifest(creator_did=5), "manifest.creator_did", id="DID as number"),
        pytest.param(manifest(creator_did="did:\x00"), "manifest.creator_did", id="NUL in DID"),
        pytest.param(manifest(creator_did="did:\ud800"), "manifest.creator_did", id="half a surrogate pair in DID"),
        pytest.param(manifest(creator_did="d" * 3_000), "manifest.creator_did", id="very long DID"),
    ],
)
def test_bad_manifests_say_what_is_wrong(body: bytes, code: str) -> None:
    """Each kind of malformed manifest is a permanent fault with its own code and a short message."""
    with pytest.raises(ManifestFault) as caught:
        parse_manifest(body)
    assert caught.value.code == code
    assert not caught.value.temporary
    assert len(caught.value.message) < 250


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Any bytes give a manifest or ManifestFault, never another error."""
    try:
        parse_manifest(body)
    except ManifestFault as fault:
        assert fault.code.startswith("manifest.")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_other_members_do_not_matter(value: Any) -> None:
    """Other members of a manifest do not change content hash, signature and creator's DID."""
    assert parse_manifest(manifest(extra=value)) == parse_manifest(manifest())


def test_no_creator_did_is_no_fault() -> None:
    """A manifest without creator_did, or with null, is whole."""
    assert parse_manifest(manifest()).creator_did is None
    assert parse_manifest(manifest(creator_did=None)).creator_did is None
