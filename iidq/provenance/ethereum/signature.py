"""Recover the signer of a content hash (EIP-191, secp256k1), with the same rules as ethers.

eth_account has other rules: it accepts a high ``s`` and refuses EIP-2098; ethers does the opposite. It also uses more
than twice the CPU.
"""

from importlib import import_module
from typing import Final

from iidq.errors import SettingsFault, SignatureFault
from iidq.notation import HEX_BYTES
from iidq.provenance.ethereum.address import address_of_bytes, keccak256

# SEC 2, section 2.4.1: the order of secp256k1's group.
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HALF_ORDER: Final = _ORDER // 2
# EIP-191, version 0x45 (E), for a message of 32 bytes.
_PERSONAL_32: Final = b"\x19Ethereum Signed Message:\n32"


def recover_signer(content_hash: str, signature: str) -> str:
    """Return the EIP-55 address that signed the 32 bytes of ``content_hash`` as an EIP-191 personal message.

    ``content_hash`` is ``0x`` and 64 hex digits, ``signature`` is ``0x`` and hex. Accepted are 65 bytes with ``v`` of
    0, 1, 27, 28 or from 35 on (EIP-155: odd is parity 0), and 64 bytes (EIP-2098). Raises :class:`SignatureFault` for a
    high ``s`` (EIP-2), for ``r`` or ``s`` outside the group, and for a point off the curve.
    """
    return recover_from_digest(personal_digest(content_hash), parse_signature(signature))


def personal_digest(content_hash: str) -> bytes:
    """Return the signed digest: the Keccak-256 of ``content_hash`` (32 bytes) as an EIP-191 personal message."""
    return keccak256(_PERSONAL_32 + bytes.fromhex(content_hash[2:]))


def parse_signature(signature: str) -> bytes:
    """Return ``r ‖ s ‖ parity`` (65 bytes, parity 0 or 1); raise :class:`SignatureFault` by the rules of ethers."""
    if not HEX_BYTES.fullmatch(signature):
        raise SignatureFault("the signature is not hex; expected 0x and 64 or 65 bytes")
    raw = bytes.fromhex(signature[2:])
    match len(raw):
        case 65:
            parity, s = _parity(raw[64]), int.from_bytes(raw[32:64])
        case 64:
            # EIP-2098: the top bit of s carries the parity.
            parity, s = raw[32] >> 7, int.from_bytes(raw[32:]) & ((1 << 255) - 1)
        case length:
            raise SignatureFault(f"the signature has {length} bytes; expected 65, or 64 as in EIP-2098")
    r = int.from_bytes(raw[:32])
    if s > _HALF_ORDER:
        raise SignatureFault("the signature's s is high; expected its lower form (EIP-2)", code="signature.high_s")
    if r == 0 or s == 0 or r >= _ORDER:
        raise SignatureFault("the signature's r or s is zero or beyond the curve's order", code="signature.range")
    return raw[:32] + s.to_bytes(32) + bytes((parity,))


def recover_from_digest(digest: bytes, signature: bytes) -> str:
    """Return the EIP-55 address that signed a 32-byte digest with ``r ‖ s ‖ parity``."""
    from coincurve import PublicKey  # imported with the first signature

    try:
        public_key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except ValueError:
        raise SignatureFault(
            "no public key fits the signature; its r is no point of the curve", code="signature.unrecoverable"
        ) from None
    return address_of_bytes(keccak256(public_key.format(compressed=False)[1:])[12:])


def require_native_curve() -> None:
    """Raise :class:`SettingsFault` unless the native libsecp256k1 is installed.

    A curve in pure Python takes fifty times as long and would stall the other jobs of the process.
    """
    try:
        native = import_module("coincurve._libsecp256k1")
    except ImportError:
        native = None
    if not hasattr(getattr(native, "lib", None), "secp256k1_ecdsa_recover"):
        raise SettingsFault(
            "coincurve's native libsecp256k1 is missing; expected `pip install coincurve` with its wheel"
        )


def _parity(v: int) -> int:
    if v in (0, 1):
        return v
    if v in (27, 28):
        return v - 27
    if v >= 35:
        return (v - 35) & 1
    raise SignatureFault(f"the signature's v is {v}; expected 0, 1, 27, 28 or from 35 on", code="signature.v")
