"""The ContentRegistry's words: the ``entries(bytes32)`` call in both layouts, and its event.

web3 decodes by one ABI, chosen before the answer; here the answer tells which of the two layouts it has.
"""

from dataclasses import dataclass
from typing import Final

from iidq.errors import RegistryFault
from iidq.provenance.ethereum.address import ZERO_ADDRESS, address_of_bytes

ENTRIES_SELECTOR: Final = "0x267b6922"  # entries(bytes32)
REGISTER_SELECTOR: Final = "0xcf2d31fb"  # register(bytes32,string)
# ContentRegistered(bytes32 indexed contentHash, address indexed creator, string manifestURI, uint64 timestamp)
CONTENT_REGISTERED_TOPIC: Final = "0xd9807b1b3c9429c865f0beb8aabf1628bedeb04a0d6f3f8dc2b42f5989816ecb"
ZERO_HASH: Final = "0x" + "0" * 64

MAX_URI_BYTES: Final = 65_536

_OLD_URI_OFFSET: Final = 0x80  # (address creator, bytes32 contentHash, string manifestURI, uint64 timestamp)
# Larger integers are rounded by readers of JSON (RFC 7493, section 2.2); no block has such a time.
_LATEST_TIMESTAMP: Final = (1 << 53) - 1
_NEW_URI_OFFSET: Final = 0x60  # (address creator, uint64 timestamp, string manifestURI)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the registry holds for a content hash.

    ``content_hash`` is the hash that was asked for, or the zero hash when nothing is registered; ``timestamp`` is
    the registration block's, in Unix seconds. Revoking empties ``manifest_uri`` and leaves the rest.
    """

    creator: str
    content_hash: str
    manifest_uri: str
    timestamp: int

    @property
    def registered(self) -> bool:
        """Whether anybody has registered this hash, be it revoked since or not."""
        return self.creator != ZERO_ADDRESS

    @property
    def revoked(self) -> bool:
        """Whether the creator has withdrawn the manifest."""
        return self.registered and not self.manifest_uri


UNREGISTERED: Final = Entry(ZERO_ADDRESS, ZERO_HASH, "", 0)


def encode_entries_call(content_hash: str) -> str:
    """Return the call data of ``entries(contentHash)`` in hex."""
    return ENTRIES_SELECTOR + content_hash[2:]


def decode_entry(data: bytes, content_hash: str) -> Entry:
    """Read what ``entries(content_hash)`` returned, in the layout that its third word tells.

    That word is the offset of the only dynamic member, the URI: 0x80 behind four words in the old layout, 0x60
    behind three in the new (Solidity ABI specification). Anything that does not fit one of the two exactly raises
    :class:`RegistryFault`: guessing would turn another contract's answer into a verdict.
    """
    if len(data) < 96:
        raise _unrecognised(f"it returned {len(data)} bytes")
    stored_hash: bytes | None
    match _word(data, 2):
        case 0x80:  # old
            stored_hash = data[32:64]
            timestamp_at = 3
            uri = _string_at(data, _OLD_URI_OFFSET)
        case 0x60:  # new
            stored_hash = None
            timestamp_at = 1
            uri = _string_at(data, _NEW_URI_OFFSET)
        case _:
            raise _unrecognised("its third word is the offset of neither layout")
    timestamp = _word(data, timestamp_at)
    if any(data[:12]):
        raise _unrecognised("its creator is no address")
    if timestamp > _LATEST_TIMESTAMP:
        raise _unrecognised("its timestamp lies beyond 2^53 seconds")
    creator = address_of_bytes(data[12:32])
    if creator == ZERO_ADDRESS:
        return UNREGISTERED
    if stored_hash is not None and stored_hash != bytes.fromhex(content_hash[2:]):
        raise _unrecognised("it returned the entry of another hash")
    return Entry(creator, content_hash, uri, timestamp)


def _word(data: bytes, index: int) -> int:
    return int.from_bytes(data[32 * index : 32 * index + 32])


def _string_at(data: bytes, offset: int) -> str:
    start = offset + 32
    if len(data) < start:
        raise _unrecognised(f"it returned {len(data)} bytes")
    length = int.from_bytes(data[offset:start])
    if length > len(data) - start:
        raise _unrecognised("its manifest URI reaches beyond what it returned")
    if length > MAX_URI_BYTES:
        raise _unrecognised(f"its manifest URI has more than {MAX_URI_BYTES:,} bytes")
    try:
        return data[start : start + length].decode("utf-8")
    except UnicodeDecodeError:
        raise _unrecognised("its manifest URI is not UTF-8") from None


def _unrecognised(why: str) -> RegistryFault:
    return RegistryFault(f"the contract at the registry address is not a ContentRegistry: {why}")


def encode_register_call(content_hash: str, manifest_uri: str) -> str:
    """Return the call data of ``register(contentHash, manifestURI)`` in hex; both layouts have the same."""
    uri = manifest_uri.encode()
    padded = uri.ljust(-(-len(uri) // 32) * 32, b"\0")
    words = bytes.fromhex(content_hash[2:]) + (0x40).to_bytes(32) + len(uri).to_bytes(32)
    return REGISTER_SELECTOR + (words + padded).hex()
