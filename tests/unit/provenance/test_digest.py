"""The content digest."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from iidq.provenance.digest import ContentDigest, sha256_label


@given(st.lists(st.binary()))
def test_chunks_do_not_matter(chunks: list[bytes]) -> None:
    """The hash is SHA-256 of the whole stream, for any chunks."""
    digest = ContentDigest()
    for chunk in chunks:
        digest.update(chunk)
    assert digest.content_hash() == "0x" + hashlib.sha256(b"".join(chunks)).hexdigest()


def test_known_answer() -> None:
    """FIPS 180-4's example "abc" gets its published digest."""
    assert sha256_label(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
