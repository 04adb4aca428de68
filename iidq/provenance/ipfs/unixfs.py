"""UnixFS in dag-pb blocks: decode blocks, follow a path through directories, assemble a file from its blocks.

Follows the dag-pb and UnixFS specifications (ipld.io/specs/codecs/dag-pb, specs.ipfs.tech/unixfs). A block is
``PBNode{1: Data, 2: Links*}``, a link ``PBLink{1: Hash, 2: Name, 3: Tsize}``, and ``Data`` holds
``{1: Type, 2: Data, 3: filesize, 4: blocksizes*, …}``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from iidq.errors import ManifestFault
from iidq.provenance.ipfs.cid import DAG_PB, RAW, Cid, read_cid, read_varint, write_varint

# A tenth of a second of work. The longest directory in one block has about 30,000 entries of four fields.
MAX_FIELDS: Final = 1 << 17
# A tree of links can repeat one small block without end: the blocks' size is no bound.
_MAX_NODES: Final = 4096
_MAX_DEPTH: Final = 32


class MalformedBlock(ValueError):
    """The block matches its CID, but is no UnixFS node of a supported kind."""


class MissingBlock(LookupError):
    """A block that the file or path needs was not delivered."""


@dataclass(slots=True)
class FieldAllowance:
    """The budget of protobuf fields for all blocks of one file."""

    left: int = MAX_FIELDS
    """Fields that may still be read."""


class NodeType(IntEnum):
    """The ``Type`` field of UnixFS."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT_SHARD = 5


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a child block."""

    name: str
    """The entry's name in a directory; empty for a part of a file."""
    cid: Cid
    """The child's CID."""


@dataclass(frozen=True, slots=True)
class Node:
    """One decoded block of a file or directory."""

    type: NodeType
    """The kind of node."""
    content: bytes
    """The node's own bytes, which precede the children's."""
    links: tuple[Link, ...]
    """The children, in order."""
    file_bytes: int | None
    """The file size in bytes that the node claims; None without a claim."""

    @property
    def is_file(self) -> bool:
        """Return whether the node is a file or part of a file."""
        return self.type in (NodeType.FILE, NodeType.RAW)


def wrap_file(content: bytes) -> bytes:
    """Return the single dag-pb block that ``ipfs add`` makes of a small file."""
    size = write_varint(len(content))
    # An empty file has no Data field at all.
    unixfs = b"\x08\x02" + (b"\x12" + size + content if content else b"") + b"\x18" + size
    return b"\x0a" + write_varint(len(unixfs)) + unixfs


def names_plain_file(cid: Cid, content: bytes) -> bool:
    """Return whether adding these plain bytes as one block gives ``cid``."""
    return cid.names(content if cid.codec == RAW else wrap_file(content))


def assemble_file(root: Cid, path: tuple[str, ...], blocks: Mapping[Cid, bytes], *, max_bytes: int) -> bytes:
    """Return the bytes of the file at ``path`` under ``root``.

    Raises :class:`MissingBlock` for a block that is not among ``blocks``. Raises :class:`ManifestFault` for a fact that
    the verified blocks prove: no such entry, no file, too large, not UnixFS.
    """
    nodes = _Nodes(blocks)
    cid = root
    for segment in path:
        cid = _entry(nodes.at(cid), segment)
    content = bytearray()
    empty_leaves = 0
    pending = [(cid, 0)]
    named = 1
    while pending:
        cid, depth = pending.pop()
        node = nodes.at(cid)
        if not node.is_file:
            raise _no_file(node)
        # An empty leaf counts as one byte: the limit on the file's bytes also bounds the leaves.
        empty_leaves += not (node.content or node.links)
        if len(content) + empty_leaves + max(len(node.content), node.file_bytes or 0) > max_bytes:
            raise ManifestFault(f"the manifest is longer than {max_bytes} bytes", code="manifest.too_large")
        # Count links before visiting them, to bound the list of pending nodes.
        named += len(node.links)
        if named > _MAX_NODES or depth > _MAX_DEPTH:
            raise ManifestFault(
                f"the manifest's file is cut into more than {_MAX_NODES:,} blocks, or more than {_MAX_DEPTH} deep",
                code="manifest.too_large",
            )
        content += node.content
        pending.extend((link.cid, depth + 1) for link in reversed(node.links))
    return bytes(content)


class _Nodes:
    """The delivered blocks; each is decoded once, all within one allowance of fields."""

    def __init__(self, blocks: Mapping[Cid, bytes]) -> None:
        self._blocks = blocks
        self._decoded: dict[Cid, Node] = {}
        self._allowance = FieldAllowance()

    def at(self, cid: Cid) -> Node:
        """Return the node; raise :class:`MissingBlock` or :class:`ManifestFault`."""
        if cid not in self._decoded:
            block = self._blocks.get(cid)
            if block is None:
                raise MissingBlock("a block of the file is missing")
            try:
                self._decoded[cid] = decode_node(cid.codec, block, self._allowance)
            except MalformedBlock as error:
                raise ManifestFault(
                    f"the CID names no file that can be read: {error}", code="manifest.not_a_file"
                ) from None
        return self._decoded[cid]


def _entry(directory: Node, name: str) -> Cid:
    if directory.type is NodeType.HAMT_SHARD:
        raise _sharded()
    if directory.type is not NodeType.DIRECTORY:
        raise ManifestFault("the path leads through something that is no directory", code="manifest.not_found")
    for link in directory.links:
        if link.name == name:
            return link.cid
    raise ManifestFault(f"the directory has no entry {name[:100]!r}", code="manifest.not_found")


def _no_file(node: Node) -> ManifestFault:
    if node.type is NodeType.HAMT_SHARD:
        return _sharded()
    kind = node.type.name.lower()
    return ManifestFault(f"the CID names a {kind}; expected a file, or a path to one", code="manifest.not_a_file")


def _sharded() -> ManifestFault:
    return ManifestFault(
        "the directory is sharded (HAMT), which is not supported; expected the file's own CID",
        code="manifest.not_a_file",
    )


def decode_node(codec: int, block: bytes, allowance: FieldAllowance | None = None) -> Node:
    """Decode a block of the given codec; raise :class:`MalformedBlock`.

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
    """Yield the fields of a protobuf message: integers (wire type 0) and byte strings (wire type 2)."""
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
