"""Recovery of signers."""

import sys

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import SettingsFault, SignatureFault
from iidq.provenance.ethereum.address import address_of_bytes, keccak256
from iidq.provenance.ethereum.signature import parse_signature, recover_signer, require_native_curve

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HASH = "0x0abe8d173cc31e8c4095fdd2576bef72f596f8c804c2623022c7cab5c6b12c8e"
SIGNER = "0xA11B0dC0ef5E51b47368a9AF802d97201C0c6F52"
R = "c15a4be926c8fc1f8d1664f83ff39306065653c2962a41796a7391582df112a1"
S = "4cbf482790f760371dd2754e3919fb7ae076e1ba528c85d159e86388c1d1d9b5"

keys = st.integers(1, ORDER - 1).map(lambda number: PrivateKey(number.to_bytes(32)))
hashes = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())


def sign(key: PrivateKey, content_hash: str) -> bytes:
    digest = keccak256(b"\x19Ethereum Signed Message:\n32" + bytes.fromhex(content_hash[2:]))
    return key.sign_recoverable(digest, hasher=None)


def address_of(key: PrivateKey) -> str:
    return address_of_bytes(keccak256(key.public_key.format(compressed=False)[1:])[12:])


@pytest.mark.parametrize("v", ["1b", "00", "23", "25", "f1"])
def test_the_public_vector_in_every_spelling_of_v(v: str) -> None:
    """The public manifest recovers to the creator with v 27, 0 and odd values from 35 on (EIP-155)."""
    assert recover_signer(HASH, f"0x{R}{S}{v}") == SIGNER


def test_the_public_vector_in_64_bytes() -> None:
    """The compact form of EIP-2098 recovers to the same creator."""
    assert recover_signer(HASH, f"0x{R}{S}") == SIGNER


@pytest.mark.parametrize("v", ["1c", "01", "24", "f0"])
def test_the_other_parity_is_another_signer(v: str) -> None:
    """A flipped parity does not recover to the creator."""
    assert recover_signer(HASH, f"0x{R}{S}{v}") != SIGNER


@given(keys, hashes)
def test_every_signature_recovers_to_its_key(key: PrivateKey, content_hash: str) -> None:
    """Signing and recovering agree, in 65 bytes and in 64."""
    signed = sign(key, content_hash)
    compact = bytearray(signed[:64])
    compact[32] |= signed[64] << 7
    for form in (signed, signed[:64] + bytes((signed[64] + 27,)), bytes(compact)):
        assert recover_signer(content_hash, "0x" + form.hex()) == address_of(key)


@given(keys, hashes, st.integers(0, 1))
def test_the_high_twin_of_a_signature_is_refused(key: PrivateKey, content_hash: str, parity: int) -> None:
    """A valid signature cannot be changed into a second valid signature (EIP-2)."""
    signed = sign(key, content_hash)
    high_s = (ORDER - int.from_bytes(signed[32:64])).to_bytes(32)
    with pytest.raises(SignatureFault) as caught:
        recover_signer(content_hash, "0x" + (signed[:32] + high_s + bytes((parity,))).hex())
    assert caught.value.code == "signature.high_s"


@pytest.mark.parametrize(
    ("signature", "code"),
    [
        ("", "signature.malformed"),
        ("0x", "signature.malformed"),
        (f"{R}{S}1b", "signature.malformed"),
        (f"0x{R}{S}1", "signature.malformed"),
        (f"0x{R}{S}1b00", "signature.malformed"),
        (f"0x{R}{S}"[:-2], "signature.malformed"),
        (f"0x{R} {S}1", "signature.malformed"),
        (f"0x{R}{S}02", "signature.v"),
        (f"0x{R}{S}1a", "signature.v"),
        (f"0x{R}{S}1d", "signature.v"),
        (f"0x{R}{S}22", "signature.v"),
        (f"0x{'0' * 64}{S}1b", "signature.range"),
        (f"0x{R}{'0' * 64}1b", "signature.range"),
        (f"0x{ORDER:x}{S}1b", "signature.range"),
        (f"0x{'f' * 64}{S}1b", "signature.range"),
        (f"0x{R}{ORDER // 2 + 1:x}1b", "signature.high_s"),
        (f"0x{5:064x}{S}1b", "signature.unrecoverable"),
    ],
)
def test_bad_signatures_are_permanent_faults(signature: str, code: str) -> None:
    """A signature refused by ethers is refused, with a code for the reason."""
    with pytest.raises(SignatureFault) as caught:
        recover_signer(HASH, signature)
    assert caught.value.code == code
    assert not caught.value.temporary


def test_the_highest_low_s_is_taken() -> None:
    """An s of exactly half the order is low, and accepted."""
    assert len(parse_signature(f"0x{R}{ORDER // 2:064x}00")) == 65


@given(st.binary(max_size=70), hashes)
def test_any_bytes_recover_or_are_refused(raw: bytes, content_hash: str) -> None:
    """Any bytes recover to a signer or raise SignatureFault, never another error."""
    try:
        assert recover_signer(content_hash, "0x" + raw.hex()).startswith("0x")
    except SignatureFault as fault:
        assert fault.code.startswith("signature.")


def test_a_native_curve_is_there() -> None:
    """The installed coincurve passes the check at the start."""
    require_native_curve()


def test_a_missing_native_curve_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libsecp256k1 the process does not start; the message names the missing package."""
    monkeypatch.setitem(sys.modules, "coincurve._libsecp256k1", None)
    with pytest.raises(SettingsFault, match="pip install coincurve"):
        require_native_curve()
