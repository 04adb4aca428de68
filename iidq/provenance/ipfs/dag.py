"""From verified blocks to a file: along a path through directories, then over the file's blocks in order."""

from collections.abc import Mapping

from iidq.errors import ManifestFault
from iidq.provenance.ipfs.cid import Cid
from iidq.provenance.ipfs.unixfs import FieldAllowance, MalformedBlock, Node, NodeType, decode_node

# A tree of links can name the same small block again and again: its size in blocks is no bound by itself.
_MAX_NODES = 4096
_MAX_DEPTH = 32


class MissingBlock(LookupError):
    """A block that the file or path needs was not delivered."""


def assemble_file(root: Cid, path: tuple[str, ...], blocks: Mapping[Cid, bytes], *, max_bytes: int) -> bytes:
    """The bytes of the file at ``path`` under ``root``.

    Raises :class:`MissingBlock` when a block is not among ``blocks``, and :class:`ManifestFault` for what the
    verified blocks themselves prove: no such entry, no file, too large, not UnixFS.
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
        # A leaf without bytes counts as one byte: the limit on the file's bytes also bounds its leaves.
        empty_leaves += not (node.content or node.links)
        if len(content) + empty_leaves + max(len(node.content), node.file_bytes or 0) > max_bytes:
            raise ManifestFault(f"the manifest is longer than {max_bytes} bytes", code="manifest.too_large")
        # Counted before they are visited: the list of what is pending is bounded too.
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
    """The nodes of the blocks that were delivered, each decoded once, all within one allowance of fields."""

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
    if directory.type is not NodeType.DIRECTORY:
        raise _no_directory(directory)
    for link in directory.links:
        if link.name == name:
            return link.cid
    raise ManifestFault(f"the directory has no entry {name[:100]!r}", code="manifest.not_found")


def _no_directory(node: Node) -> ManifestFault:
    if node.type is NodeType.HAMT_SHARD:
        return _sharded()
    return ManifestFault("the path leads through something that is no directory", code="manifest.not_found")


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
