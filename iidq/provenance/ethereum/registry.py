"""ABI encoding for the contracts that a verification calls: ContentRegistry and contract wallets. Pure.

Two layouts of ``entries(bytes32)`` exist, and the answer itself shows the layout; web3 decodes by one ABI, chosen
before the call. web3 would also follow an address that a wallet names (EIP-3668), at several times the CPU.
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
# bytes4(keccak256("isValidSignature(bytes32,bytes)")): the selector, and the value of "accepted".
_IS_VALID_SIGNATURE: Final = bytes.fromhex("1626ba7e")

_OLD_URI_OFFSET: Final = 0x80  # (address creator, bytes32 contentHash, string manifestURI, uint64 timestamp)
# JSON parsers may round larger integers (RFC 7493, section 2.2); no block has such a time.
_LATEST_TIMESTAMP: Final = (1 << 53) - 1
_NEW_URI_OFFSET: Final = 0x60  # (address creator, uint64 timestamp, string manifestURI)


@dataclass(frozen=True, slots=True)
class Entry:
    """The registry's entry for a content hash."""

    creator: str
    """The EIP-55 address that registered the hash; the zero address if the hash is not registered."""
    content_hash: str
    """The hash of the call; the zero hash if it is not registered."""
    manifest_uri: str
    """The manifest's URI as registered; empty after a revocation."""
    timestamp: int
    """Time of the registration's block, in Unix seconds; 0 if the hash is not registered."""

    @property
    def registered(self) -> bool:
        """Return whether the hash was registered, revoked or not."""
        return self.creator != ZERO_ADDRESS

    @property
    def revoked(self) -> bool:
        """Return whether the creator has withdrawn the manifest."""
        return self.registered and not self.manifest_uri


UNREGISTERED: Final = Entry(ZERO_ADDRESS, ZERO_HASH, "", 0)


def encode_entries_call(content_hash: str) -> str:
    """Return the call data of ``entries(contentHash)`` in hex."""
    return ENTRIES_SELECTOR + content_hash[2:]


def decode_entry(data: bytes, content_hash: str) -> Entry:
    """Decode the data that ``entries(content_hash)`` returned.

    The third word is the offset of the only dynamic member, the URI: 0x80 in the old layout of four words, 0x60 in the
    new layout of three (Solidity ABI specification). Raises :class:`RegistryFault` unless the data fits one layout
    exactly: a guess would turn another contract's answer into a verdict.
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


def encode_is_valid_signature_call(digest: bytes, signature: bytes) -> str:
    """Return the call data of ``isValidSignature(digest, signature)`` in hex (EIP-1271)."""
    head = digest + (0x40).to_bytes(32) + len(signature).to_bytes(32)
    return "0x" + (_IS_VALID_SIGNATURE + head + signature + bytes(-len(signature) % 32)).hex()


def accepts_signature(returned: bytes | None) -> bool:
    """Return whether a wallet accepted the signature (EIP-1271); None is a refused call.

    The whole first word must match: a contract that answers every call with something has not accepted.
    """
    return returned is not None and returned[:32] == _IS_VALID_SIGNATURE + bytes(28)


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
