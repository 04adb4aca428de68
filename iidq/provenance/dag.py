"""From verified blocks to a file: along a path through directories, then over the file's blocks in order."""

from collections.abc import Mapping

from iidq.errors import ManifestFault
from iidq.provenance.cid import Cid
from iidq.provenance.unixfs import MalformedBlock, Node, NodeType, decode_node

# A tree of links can name the same small block again and again: its size in blocks is no bound by itself.
_MAX_VISITED_NODES = 4096
_MAX_DEPTH = 32


class MissingBlock(LookupError):
    """A block that the file or path needs was not delivered."""


def assemble_file(root: Cid, path: tuple[str, ...], blocks: Mapping[Cid, bytes], *, max_bytes: int) -> bytes:
    """The bytes of the file at ``path`` under ``root``.

    Raises :class:`MissingBlock` when a block is not among ``blocks``, and :class:`ManifestFault` for what the
    verified blocks themselves prove: no such entry, no file, too large, not UnixFS.
    """
    cid = root
    for segment in path:
        cid = _entry(_node(cid, blocks), segment)
    if not _node(cid, blocks).is_file:
        raise _no_file(_node(cid, blocks))
    content = bytearray()
    pending = [(cid, 0)]
    visited = 0
    while pending:
        cid, depth = pending.pop()
        visited += 1
        if visited > _MAX_VISITED_NODES or depth > _MAX_DEPTH:
            raise ManifestFault("the manifest's file has too many blocks", code="manifest.too_large")
        node = _node(cid, blocks)
        if not node.is_file:
            raise _no_file(node)
        if len(content) + max(len(node.content), node.file_bytes or 0) > max_bytes:
            raise ManifestFault(f"the manifest is longer than {max_bytes} bytes", code="manifest.too_large")
        content += node.content
        pending.extend((link.cid, depth + 1) for link in reversed(node.links))
    return bytes(content)


def _node(cid: Cid, blocks: Mapping[Cid, bytes]) -> Node:
    block = blocks.get(cid)
    if block is None:
        raise MissingBlock("a block of the file is missing")
    try:
        return decode_node(cid.codec, block)
    except MalformedBlock as error:
        raise ManifestFault(f"the CID names no file that can be read: {error}", code="manifest.not_a_file") from None


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
