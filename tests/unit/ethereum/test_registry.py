"""ABI data of the registry, in both layouts, and of contract wallets."""

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import RegistryFault
from iidq.provenance.ethereum.address import ZERO_ADDRESS, checksum_address
from iidq.provenance.ethereum.registry import (
    UNREGISTERED,
    ZERO_HASH,
    Entry,
    accepts_signature,
    decode_entry,
    encode_entries_call,
    encode_is_valid_signature_call,
)
from tests.provenance.rpc_world import new_layout, old_layout, packed, word

HASH = "0x" + "ab" * 32
CREATOR = checksum_address("0x" + "5e" * 20)
MAGIC = keccak(text="isValidSignature(bytes32,bytes)")[:4]
ADDRESS_WORD = word(int(CREATOR, 16))

addresses = st.integers(1, 2**160 - 1).map(lambda number: checksum_address(f"0x{number:040x}"))
times = st.integers(0, 2**53 - 1)


@given(addresses, st.text(max_size=200), times)
def test_both_layouts_give_the_same_entry(creator: str, uri: str, timestamp: int) -> None:
    """Either layout gives the registered values, with the hash of the call."""
    try:
        raw = uri.encode()
    except UnicodeEncodeError:
        return
    expected = Entry(creator, HASH, uri, timestamp)
    assert decode_entry(old_layout(creator, HASH, raw, timestamp), HASH) == expected
    assert decode_entry(new_layout(creator, raw, timestamp), HASH) == expected


@pytest.mark.parametrize("data", [old_layout(ZERO_ADDRESS, ZERO_HASH, b"", 0), new_layout(ZERO_ADDRESS, b"", 0)])
def test_an_empty_slot_is_unregistered(data: bytes) -> None:
    """An unregistered hash has the zero entry in either layout, and is not revoked."""
    entry = decode_entry(data, HASH)
    assert entry == UNREGISTERED
    assert (entry.registered, entry.revoked) == (False, False)


@pytest.mark.parametrize("data", [old_layout(CREATOR, HASH, b"", 5), new_layout(CREATOR, b"", 5)])
def test_an_empty_uri_is_a_revoked_entry(data: bytes) -> None:
    """A revoked entry keeps creator and time, unlike an unregistered hash."""
    entry = decode_entry(data, HASH)
    assert (entry.registered, entry.revoked, entry.creator, entry.timestamp) == (True, True, CREATOR, 5)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(31), id="31 bytes"),
        pytest.param(word(1), id="a number"),
        pytest.param(bytes(96), id="zeros"),
        pytest.param(bytes(1024), id="many zeros"),
        pytest.param(word(0x20) + packed(b"text"), id="a string"),
        pytest.param(ADDRESS_WORD + word(5) + word(2**256 - 32) + packed(b"u"), id="a huge offset"),
        pytest.param(ADDRESS_WORD + word(5) + word(0x61) + packed(b"u"), id="an odd offset"),
        pytest.param(ADDRESS_WORD + word(5) + word(0x60), id="no string"),
        pytest.param(ADDRESS_WORD + word(5) + word(0x60) + word(2**255), id="a huge length"),
        pytest.param(ADDRESS_WORD + word(5) + word(0x60) + word(33) + bytes(32), id="a length beyond the end"),
        pytest.param(ADDRESS_WORD + word(5) + word(0x60) + packed(b"u" * 65_537), id="an endless URI"),
        pytest.param(new_layout(CREATOR, b"\xff\xfe", 5), id="invalid UTF-8"),
        pytest.param(old_layout(CREATOR, HASH, b"\xc3", 5), id="invalid UTF-8, old"),
        pytest.param(word(2**160) + word(5) + word(0x60) + packed(b"u"), id="creator of 21 bytes"),
        pytest.param(ADDRESS_WORD + word(2**53) + word(0x60) + packed(b"u"), id="timestamp beyond 2^53"),
        pytest.param(ADDRESS_WORD + word(2**64) + word(0x60) + packed(b"u"), id="timestamp beyond uint64"),
        pytest.param(old_layout(CREATOR, "0x" + "cd" * 32, b"u", 5), id="the entry of another hash"),
        pytest.param(old_layout(CREATOR, HASH, b"", 5)[:128], id="old layout, cut short"),
    ],
)
def test_anything_else_is_no_registry(data: bytes) -> None:
    """Data other than the two exact layouts is refused as no ContentRegistry."""
    with pytest.raises(RegistryFault) as caught:
        decode_entry(data, HASH)
    assert caught.value.code == "registry.unrecognised"
    assert "not a ContentRegistry" in caught.value.message


@given(st.binary(max_size=400))
def test_any_words_are_read_or_refused(data: bytes) -> None:
    """Arbitrary data raises nothing but RegistryFault."""
    try:
        decode_entry(data, HASH)
    except RegistryFault as fault:
        assert fault.code == "registry.unrecognised"


def test_the_call_asks_for_the_hash() -> None:
    """The call data of an entry is the selector of entries(bytes32) and the hash."""
    assert encode_entries_call(HASH) == "0x267b6922" + "ab" * 32


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_the_wallets_call_is_abi_encoded(digest: bytes, signature: bytes) -> None:
    """The call data of a wallet equals eth_abi's, for signatures of any length."""
    expected = MAGIC + encode(["bytes32", "bytes"], [digest, signature])
    assert encode_is_valid_signature_call(digest, signature) == "0x" + expected.hex()


@pytest.mark.parametrize(
    ("returned", "accepted"),
    [
        (MAGIC + bytes(28), True),
        (MAGIC + bytes(60), True),
        (MAGIC, False),
        (MAGIC + bytes(27), False),
        (bytes(28) + MAGIC, False),
        (MAGIC + bytes(27) + b"\x01", False),
        (b"\xff" * 32, False),
        (b"", False),
        (None, False),
    ],
)
def test_only_the_whole_word_is_a_yes(returned: bytes | None, accepted: bool) -> None:
    """Only the magic value as a whole left-aligned word is accepted."""
    assert accepts_signature(returned) is accepted
