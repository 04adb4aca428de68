"""Content identifiers (CIDs): text that names bytes by their hash, so that any server may deliver them.

Follows the CID specification (multiformats/cid). Version 0 is the base58btc text of a SHA-256 multihash of a dag-pb
block. Version 1 is ``multibase(version, codec, multihash)``. Only SHA-256 is accepted, with the codecs that hold
files: dag-pb (UnixFS) and raw. A test compares the results with libipld, which does not read dag-pb blocks.
"""

import hashlib
from base64 import b32decode, b32encode
from collections.abc import Callable
from dataclasses import dataclass, field

from iidq.errors import FetchRefused

DAG_PB = 0x70
RAW = 0x55

_MAX_CID_CHARACTERS = 256
_MAX_VARINT_BYTES = 9
_SHA2_256 = 0x12
_SHA2_256_PREFIX = b"\x12\x20"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Cid:
    """A SHA-256 digest with the codec of its block. Equality ignores the text's version and base."""

    codec: int
    """``DAG_PB`` or ``RAW``."""
    digest: bytes
    """32 bytes."""
    text: str = field(default="", compare=False)
    """The text as parsed; empty for a CID from a block or an archive."""

    def names(self, block: bytes) -> bool:
        """Return whether the bytes have this digest."""
        return hashlib.sha256(block).digest() == self.digest


class UnsupportedCid(ValueError):
    """A well-formed CID with a hash or codec that is not handled here."""


def parse_cid(text: str) -> Cid:
    """Parse a CID's text; raise :class:`FetchRefused` (``fetch.refused.cid``) naming the expected form."""
    if not 0 < len(text) <= _MAX_CID_CHARACTERS:
        raise _refused("expected a CID, such as Qm… or bafy…")
    try:
        if text.startswith("Qm") and len(text) == 46:
            return Cid(DAG_PB, _sha256_of(_from_base58(text)), text)
        if text[0].lower() not in _MULTIBASES or text[0] == "Z":
            raise _refused("not a CID; expected version 0 (Qm…) or version 1 in base32, base36, base58btc or base16")
        data = _from_multibase(text)
        cid, end = read_cid(data)
        if data.startswith(_SHA2_256_PREFIX):
            raise ValueError("version 0 has no multibase")
        if end != len(data):
            raise ValueError("bytes after the CID")
    except UnsupportedCid as error:
        raise _refused(str(error)) from None
    except ValueError:
        raise _refused("not a well-formed CID; expected the whole text as `ipfs add` prints it") from None
    return Cid(cid.codec, cid.digest, text)


def dag_pb_cid(block: bytes) -> str:
    """Return the CIDv0 text (``Qm…``) of a dag-pb block."""
    number = int.from_bytes(_SHA2_256_PREFIX + hashlib.sha256(block).digest())
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return text


def raw_cid(block: bytes) -> str:
    """Return the CIDv1 text of a raw block, in base32 (``bafkrei…``)."""
    return "b" + _base32(bytes((1, RAW)) + _SHA2_256_PREFIX + hashlib.sha256(block).digest())


def read_cid(data: bytes, at: int = 0) -> tuple[Cid, int]:
    """Read the binary CID at an offset; return the CID and the offset behind it.

    Raises :class:`UnsupportedCid` for a hash other than SHA-256 and a codec other than dag-pb and raw, and
    :class:`ValueError` for bytes that are no CID.
    """
    if data[at : at + 2] == _SHA2_256_PREFIX:
        return Cid(DAG_PB, _sha256_of(data[at : at + 34])), at + 34
    version, at = read_varint(data, at)
    if version != 1:
        raise ValueError("neither CID version 0 nor 1")
    codec, at = read_varint(data, at)
    hash_code, at = read_varint(data, at)
    length, at = read_varint(data, at)
    if length > 128 or at + length > len(data):
        raise ValueError("the CID's digest is cut off")
    if hash_code != _SHA2_256:
        raise UnsupportedCid(f"the CID's hash function 0x{hash_code:x} is not supported; expected sha2-256")
    if codec not in (DAG_PB, RAW):
        raise UnsupportedCid(f"the CID's codec 0x{codec:x} is not supported; expected dag-pb or raw")
    if length != 32:
        raise ValueError("a SHA-256 digest has 32 bytes")
    return Cid(codec, data[at : at + 32]), at + 32


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read the unsigned LEB128 integer at an offset; return the number (below 2^63) and the offset behind it.

    Protobuf, CIDs and CARs write lengths and numbers in this form. Raises :class:`ValueError` for a number that is cut
    off or longer.
    """
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("a number is longer than 63 bits")


def write_varint(value: int) -> bytes:
    """Return the shortest LEB128 form of a number from 0 on."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sha256_of(multihash: bytes) -> bytes:
    if len(multihash) != 34 or not multihash.startswith(_SHA2_256_PREFIX):
        raise ValueError("not a SHA-256 multihash")
    return multihash[2:]


def _from_multibase(text: str) -> bytes:
    base, digits = text[0], text[1:]
    if base in "BFK":
        if digits != digits.upper():
            raise ValueError("lower-case digits in an upper-case base")
        base, digits = base.lower(), digits.lower()
    return _MULTIBASES[base](digits)


def _from_base58(text: str) -> bytes:
    return _from_digits(text, _BASE58)


def _from_base36(text: str) -> bytes:
    return _from_digits(text, _BASE36)


def _from_digits(text: str, alphabet: str) -> bytes:
    number = 0
    for character in text:
        number = number * len(alphabet) + alphabet.index(character)
    leading_zeros = len(text) - len(text.lstrip(alphabet[0]))
    return bytes(leading_zeros) + number.to_bytes((number.bit_length() + 7) // 8)


def _from_base32(text: str) -> bytes:
    data = b32decode(text.upper() + "=" * (-len(text) % 8))
    if _base32(data) != text:
        # Stray bits at the end would be a second spelling of the same bytes.
        raise ValueError("not the canonical form")
    return data


def _base32(data: bytes) -> str:
    # RFC 4648, section 6: lower case and without padding in a multibase.
    return b32encode(data).decode().rstrip("=").lower()


def _from_base16(text: str) -> bytes:
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError("blanks or upper-case digits")
    return data


_MULTIBASES: dict[str, Callable[[str], bytes]] = {
    "b": _from_base32,
    "f": _from_base16,
    "k": _from_base36,
    "z": _from_base58,
}


def _refused(message: str) -> FetchRefused:
    return FetchRefused(message, code="fetch.refused.cid")
