"""UnixFS blocks, and files made of blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import ManifestFault
from iidq.provenance.ipfs.cid import DAG_PB, RAW, Cid
from iidq.provenance.ipfs.unixfs import (
    MalformedBlock,
    MissingBlock,
    NodeType,
    assemble_file,
    decode_node,
    names_plain_file,
    wrap_file,
)
from tests.unit.ipfs.ipfs_blocks import cid_of, field, node, split_file


def _by_cid(*blocks: tuple[int, bytes]) -> dict[Cid, bytes]:
    return {cid_of(codec, block): block for codec, block in blocks}


@given(st.binary(max_size=5000))
def test_a_wrapped_file_is_read_back(content: bytes) -> None:
    """A wrapped file is read back unchanged, and the CID of either codec names the plain bytes."""
    block = wrap_file(content)
    read = decode_node(DAG_PB, block)
    assert (read.type, read.content, read.links) == (NodeType.FILE, content, ())
    assert names_plain_file(cid_of(DAG_PB, block), content)
    assert names_plain_file(cid_of(RAW, content), content)
    assert not names_plain_file(cid_of(RAW, content), content + b"\n")


@given(st.binary(max_size=300))
def test_any_block_is_read_or_malformed(block: bytes) -> None:
    """Arbitrary bytes are read or malformed, and raise no other error."""
    try:
        decode_node(DAG_PB, block)
    except MalformedBlock:
        return


@given(st.binary(min_size=1, max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_block_is_read_or_malformed(content: bytes, at: int, value: int) -> None:
    """A block with a flipped byte is read or malformed, and raises no other error."""
    block = bytearray(node(2, content, ("x", RAW, content), size=len(content)))
    block[at % len(block)] = value
    try:
        decode_node(DAG_PB, bytes(block))
    except MalformedBlock:
        return


@pytest.mark.parametrize(
    "block",
    [
        b"",
        field(1, b""),
        field(1, field(1, 9)),
        field(1, field(1, 2)) + field(1, field(1, 2)),
        field(3, b"x") + field(1, field(1, 2)),
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0a" + b"\xff" * 12,
        field(2, field(2, b"no hash")) + field(1, field(1, 2)),
        b"\x0d\x00\x00\x00\x00",
    ],
)
def test_malformed_blocks_are_told(block: bytes) -> None:
    """Cut off, doubled, unknown and overlong fields are refused."""
    with pytest.raises(MalformedBlock):
        decode_node(DAG_PB, block)


@given(st.binary(min_size=1, max_size=2000), st.integers(50, 400))
def test_a_split_file_is_put_together(content: bytes, chunk_bytes: int) -> None:
    """The leaves' bytes come in the links' order, also when equal leaves share a block."""
    root, blocks = split_file(content, chunk_bytes)
    assert assemble_file(cid_of(DAG_PB, root), (), _by_cid(*blocks), max_bytes=2000) == content


def test_a_path_leads_through_directories() -> None:
    """Each segment of a path is a link's name."""
    file = wrap_file(b"{}")
    inner = node(1, None, ("manifest.json", DAG_PB, file), ("other", RAW, b"x"))
    outer = node(1, None, ("a", DAG_PB, inner))
    blocks = _by_cid((DAG_PB, file), (DAG_PB, inner), (DAG_PB, outer), (RAW, b"x"))
    root = cid_of(DAG_PB, outer)
    assert assemble_file(root, ("a", "manifest.json"), blocks, max_bytes=10) == b"{}"
    assert assemble_file(root, ("a", "other"), blocks, max_bytes=10) == b"x"


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        ((), "manifest.not_a_file", "directory"),
        (("missing",), "manifest.not_found", "no entry 'missing'"),
        (("file", "deeper"), "manifest.not_found", "no directory"),
        (("shards",), "manifest.not_a_file", "HAMT"),
        (("shards", "x"), "manifest.not_a_file", "HAMT"),
        (("symlink",), "manifest.not_a_file", "symlink"),
        (("odd",), "manifest.not_a_file", "cannot be read|can be read"),
    ],
)
def test_what_verified_blocks_prove_is_permanent(path: tuple[str, ...], code: str, told: str) -> None:
    """A missing entry, a symlink and a sharded directory each have a separate message."""
    parts = {
        "file": node(2, b"x"),
        "shards": node(5, b"\xff"),
        "symlink": node(4, b"/etc/passwd"),
        "odd": b"\xff",
    }
    root = node(1, None, *((name, DAG_PB, block) for name, block in parts.items()))
    blocks = _by_cid((DAG_PB, root), *((DAG_PB, block) for block in parts.values()))
    with pytest.raises(ManifestFault, match=told) as caught:
        assemble_file(cid_of(DAG_PB, root), path, blocks, max_bytes=100)
    assert caught.value.code == code


def test_a_missing_block_is_told() -> None:
    """A file is not assembled with a leaf missing."""
    root, blocks = split_file(b"x" * 100 + b"y", 100)
    with pytest.raises(MissingBlock):
        assemble_file(cid_of(DAG_PB, root), (), _by_cid(*blocks[:-1]), max_bytes=200)


def test_a_file_over_the_limit_is_refused_by_its_root() -> None:
    """A file over the limit is refused by its declared size, without the leaves."""
    root, blocks = split_file(b"x" * 101, 50)
    with pytest.raises(ManifestFault) as caught:
        assemble_file(cid_of(DAG_PB, root), (), _by_cid(*blocks[:1]), max_bytes=100)
    assert caught.value.code == "manifest.too_large"


def test_a_file_that_hides_its_size_is_refused_too() -> None:
    """Repeated leaves of a file without a size count against the limit."""
    root = node(2, None, *[("", RAW, b"x" * 50)] * 3)
    with pytest.raises(ManifestFault) as caught:
        assemble_file(cid_of(DAG_PB, root), (), _by_cid((DAG_PB, root), (RAW, b"x" * 50)), max_bytes=100)
    assert caught.value.code == "manifest.too_large"


def test_a_tree_of_repeated_empty_blocks_ends() -> None:
    """Few blocks with many links to each other are not walked to the end."""
    blocks = {cid_of(RAW, b""): b""}
    codec, block = RAW, b""
    for _ in range(8):
        block = node(2, None, *[("", codec, block)] * 20)
        codec = DAG_PB
        blocks[cid_of(DAG_PB, block)] = block
    with pytest.raises(ManifestFault) as caught:
        assemble_file(cid_of(DAG_PB, block), (), blocks, max_bytes=100)
    assert caught.value.code == "manifest.too_large"
