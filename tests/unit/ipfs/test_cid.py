"""Content identifiers in all spellings."""

import hashlib
from pathlib import Path

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import FetchRefused
from iidq.provenance.ipfs.cid import DAG_PB, RAW, Cid, parse_cid
from iidq.provenance.ipfs.unixfs import names_plain_file
from tests.unit.ipfs.ipfs_blocks import cid_bytes, cid_v0

PUBLIC_MANIFEST = Path(__file__).parents[2] / "vectors" / "base-sepolia" / "manifest.json"
PUBLIC_CID = "QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o"


def test_the_public_vector() -> None:
    """A manifest registered on Base Sepolia, without the file's last newline, matches its CID."""
    content = PUBLIC_MANIFEST.read_bytes().rstrip(b"\n")
    assert len(content) == 510
    assert names_plain_file(parse_cid(PUBLIC_CID), content)
    assert not names_plain_file(parse_cid(PUBLIC_CID), content + b"\n")


def test_known_vectors() -> None:
    """CIDs printed by `ipfs add` for known bytes match the bytes."""
    assert names_plain_file(parse_cid("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"), b"")
    assert names_plain_file(parse_cid("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"), b"hello world")
    assert names_plain_file(parse_cid("Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"), b"hello world")
    assert names_plain_file(parse_cid("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"), b"")


@given(st.binary(max_size=200), st.sampled_from([DAG_PB, RAW]))
def test_every_base_spells_the_same_cid(block: bytes, codec: int) -> None:
    """Base32, base36, base58btc and base16, upper-case if the base has upper case, and version 0 give equal CIDs."""
    binary = cid_bytes(codec, block)
    texts = [libipld.encode_multibase(base, binary) for base in "bBfFkKz"]
    if codec == DAG_PB:
        texts.append(cid_v0(block))
    expected = Cid(codec, hashlib.sha256(block).digest())
    assert {parse_cid(text) for text in texts} == {expected}
    assert expected.names(block)
    assert not expected.names(block + b"x")


@given(st.data(), st.sampled_from("bBfFkKz0"), st.sampled_from([DAG_PB, RAW]))
def test_another_implementation_reads_the_same(data: st.DataObject, base: str, codec: int) -> None:
    """Libipld reads every accepted text as the same CID, also after changes of characters."""
    text = cid_v0(b"") if base == "0" else libipld.encode_multibase(base, cid_bytes(codec, b""))
    changes = st.tuples(st.integers(1, len(text) - 1), st.sampled_from("129abzABZ+-= "))
    for at, character in data.draw(st.lists(changes, max_size=2)):
        text = text[:at] + character + text[at + 1 :]
    try:
        ours = parse_cid(text)
    except FetchRefused:
        return
    theirs = libipld.decode_cid(text)
    assert (ours.codec, ours.digest) == (theirs["codec"], theirs["hash"]["digest"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a CID"),
        ("b" * 257, "expected a CID"),
        ("Qm" + "1" * 44, "well-formed"),
        (PUBLIC_CID[:-1] + "0", "well-formed"),
        ("z" + PUBLIC_CID, "well-formed"),
        ("f1220" + "00" * 32, "well-formed"),
        ("x" + "00" * 36, "not a CID"),
        ("Z" + "00" * 36, "not a CID"),
        ("example.org", "not a CID"),
        ("f01551220" + "00" * 31, "well-formed"),
        ("f01551220" + "00" * 33, "well-formed"),
        ("f0155121f" + "00" * 31, "well-formed"),
        ("f02551220" + "00" * 32, "well-formed"),
        ("f01550000", "hash function 0x0"),
        ("f01551114" + "00" * 20, "hash function 0x11"),
        ("f01551340" + "00" * 64, "hash function 0x13"),
        ("f01711220" + "00" * 32, "codec 0x71"),
        ("f01721220" + "00" * 32, "codec 0x72"),
        ("f0155 1220" + "00" * 32, "well-formed"),
        ("f" + "80" * 20, "well-formed"),
        ("b", "well-formed"),
        ("BAFKREIgh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "well-formed"),
        ("bAFKREIGH2AKISCAILDCQABSYG3DFR6CHU3FGPREGIYMSCK7E7AQA4S52ZY", "well-formed"),
    ],
)
def test_other_texts_are_refused_with_what_was_expected(text: str, told: str) -> None:
    """Unknown bases, other hashes, other codecs and damaged texts are refused with different messages."""
    with pytest.raises(FetchRefused, match=told) as caught:
        parse_cid(text)
    assert caught.value.code == "fetch.refused.cid"


@given(st.text(max_size=260))
def test_any_text_is_a_cid_or_refused(text: str) -> None:
    """Any text gives a CID with a whole digest, or a refusal."""
    try:
        assert len(parse_cid(text).digest) == 32
    except FetchRefused:
        return
