"""UnixFS inside dag-pb blocks: how IPFS wraps a file's bytes, and the links of files and directories.

Follows the dag-pb and UnixFS specifications (ipld.io/specs/codecs/dag-pb, specs.ipfs.tech/unixfs): a block is
``PBNode{1: Data, 2: Links*}``, a link ``PBLink{1: Hash, 2: Name, 3: Tsize}``, and ``Data`` holds
``{1: Type, 2: Data, 3: filesize, 4: blocksizes*, …}``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from iidq.errors import ManifestFault
from iidq.provenance.ipfs.cid import DAG_PB, RAW, Cid, read_cid
from iidq.provenance.ipfs.varint import read_varint, write_varint

# A tenth of a second of work. The longest directory in one block has about 30,000 entries of four fields.
MAX_FIELDS: Final = 1 << 17


@dataclass(slots=True)
class FieldAllowance:
    """How many more protobuf fields may be read, in all blocks of one file together."""

    left: int = MAX_FIELDS


class MalformedBlock(ValueError):
    """The bytes are what their CID names, but no UnixFS node of a kind that is read here."""


class NodeType(IntEnum):
    """UnixFS's ``Type``."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT_SHARD = 5


@dataclass(frozen=True, slots=True)
class Link:
    """A child block; files' children have no name."""

    name: str
    cid: Cid


@dataclass(frozen=True, slots=True)
class Node:
    """One block of a file or directory: its own bytes first, then its children's in order."""

    type: NodeType
    content: bytes
    links: tuple[Link, ...]
    file_bytes: int | None

    @property
    def is_file(self) -> bool:
        return self.type in (NodeType.FILE, NodeType.RAW)


def decode_node(codec: int, block: bytes, allowance: FieldAllowance | None = None) -> Node:
    """Read a block of the given codec; raises :class:`MalformedBlock`.

    Takes the block's fields from ``allowance``, by default a new one; raises :class:`ManifestFault` when none is left.
    """
    if codec == RAW:
        return Node(NodeType.RAW, block, (), len(block))
    if codec != DAG_PB:
        raise MalformedBlock(f"codec 0x{codec:x} holds no file")
    try:
        return _dag_pb(block, allowance or FieldAllowance())
    except ValueError as error:
        raise MalformedBlock(f"not a UnixFS block: {error}") from None


def wrap_file(content: bytes) -> bytes:
    """The single dag-pb block that ``ipfs add`` makes of a small file."""
    size = write_varint(len(content))
    # An empty file has no Data field at all.
    unixfs = b"\x08\x02" + (b"\x12" + size + content if content else b"") + b"\x18" + size
    return b"\x0a" + write_varint(len(unixfs)) + unixfs


def names_plain_file(cid: Cid, content: bytes) -> bool:
    """Whether ``cid`` is what these plain bytes get when they are added as one block."""
    return cid.names(content if cid.codec == RAW else wrap_file(content))


def _dag_pb(block: bytes, allowance: FieldAllowance) -> Node:
    data: bytes | None = None
    links: list[Link] = []
    for number, value in _fields(block, allowance):
        if number == 1 and isinstance(value, bytes) and data is None:
            data = value
        elif number == 2 and isinstance(value, bytes):
            links.append(_link(value, allowance))
        else:
            raise ValueError(f"field {number} has no place in a dag-pb node")
    if data is None:
        raise ValueError("a dag-pb node without UnixFS data")
    kind: int | None = None
    content = b""
    file_bytes: int | None = None
    for number, value in _fields(data, allowance):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2 and isinstance(value, bytes):
            content = value
        elif number == 3 and isinstance(value, int):
            file_bytes = value
    if kind is None:
        raise ValueError("a UnixFS node without a type")
    return Node(NodeType(kind), content, tuple(links), file_bytes)


def _link(data: bytes, allowance: FieldAllowance) -> Link:
    cid: Cid | None = None
    name = ""
    for number, value in _fields(data, allowance):
        if number == 1 and isinstance(value, bytes):
            cid, end = read_cid(value)
            if end != len(value):
                raise ValueError("bytes after a link's CID")
        elif number == 2 and isinstance(value, bytes):
            name = value.decode("utf-8")
    if cid is None:
        raise ValueError("a link without a CID")
    return Link(name, cid)


def _fields(message: bytes, allowance: FieldAllowance) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: numbers (wire type 0) and byte strings (wire type 2)."""
    at = 0
    while at < len(message):
        allowance.left -= 1
        if allowance.left < 0:
            raise ManifestFault(
                f"the blocks of the manifest's file have more than {MAX_FIELDS:,} fields", code="manifest.too_complex"
            )
        tag, at = read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        value, at = read_varint(message, at)
        if wire_type == 0:
            yield number, value
        elif wire_type == 2:
            if at + value > len(message):
                raise ValueError("a field is cut off")
            yield number, message[at : at + value]
            at += value
        else:
            raise ValueError(f"wire type {wire_type}")
