"""Content identifiers: the text that names bytes by their hash, so that whoever delivers them needs no trust.

Follows the CID specification (multiformats/cid): version 0 is the base58btc text of a SHA-256 multihash of a
dag-pb block; version 1 is ``multibase(version, codec, multihash)``. SHA-256 alone is accepted, and the codecs
that hold files: dag-pb (UnixFS) and raw. libipld agrees, which a test shows, but does not read dag-pb blocks.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from iidq.errors import FetchRefused
from iidq.provenance.ipfs.varint import read_varint

DAG_PB = 0x70
RAW = 0x55

_MAX_CID_CHARACTERS = 256
_SHA2_256 = 0x12
_SHA2_256_PREFIX = b"\x12\x20"
_BASE32 = re.compile("[a-z2-7]*")
# Python counts its digits 0 to 9, then a to v.
_BASE32_TO_PYTHON = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghijklmnopqrstuv")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Cid:
    """A SHA-256 digest with the codec of the block that it names; equal whatever the text's version or base."""

    codec: int
    digest: bytes
    text: str = field(default="", compare=False)

    def names(self, block: bytes) -> bool:
        """Whether these bytes are the block that this CID names."""
        return hashlib.sha256(block).digest() == self.digest


def parse_cid(text: str) -> Cid:
    """Read a CID's text; raises :class:`FetchRefused` (``fetch.refused.cid``) naming what was expected."""
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


class UnsupportedCid(ValueError):
    """A well-formed CID whose hash or codec is not handled here."""


def read_cid(data: bytes, at: int = 0) -> tuple[Cid, int]:
    """Read a binary CID, as in blocks' links and CAR sections; returns it and where it ends.

    Raises :class:`UnsupportedCid` for another hash than SHA-256 or another codec than dag-pb and raw, and
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
    return bytes(leading_zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _from_base32(text: str) -> bytes:
    # RFC 4648, section 6, without padding. By way of a number: 2 µs, where the standard library's reader takes 17.
    if not _BASE32.fullmatch(text):
        raise ValueError("not lower-case base32")
    stray_bits = 5 * len(text) % 8
    number = int(text.translate(_BASE32_TO_PYTHON), 32)
    if stray_bits > 4 or number & ((1 << stray_bits) - 1):
        # Ignored, they would be a second spelling of the same bytes.
        raise ValueError("stray bits")
    return (number >> stray_bits).to_bytes(5 * len(text) // 8, "big")


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
