"""The work of assembling a file from any blocks: bounded, and off the event loop for long blocks."""

import json
import threading
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import ManifestFault
from iidq.guarded_http.fetch_policy import PUBLIC_ONLY
from iidq.provenance.ipfs import unixfs
from iidq.provenance.ipfs.car import read_car
from iidq.provenance.ipfs.cid import DAG_PB, RAW, Cid
from iidq.provenance.ipfs.gateway import Gateway
from iidq.provenance.ipfs.gateways import IpfsGateways
from iidq.provenance.ipfs.unixfs import FieldAllowance, MissingBlock, Node, assemble_file, decode_node, wrap_file
from iidq.provenance.manifest import parse_manifest
from iidq.provenance.manifest_uri import IpfsUri, parse_manifest_uri
from tests.unit.guarded_http.scripted_server import serving
from tests.unit.ipfs.ipfs_blocks import (
    CAR_HEADER,
    car,
    cid_of,
    cid_v0,
    countless_fields,
    field,
    node,
    section,
    tiny_fields,
)
from tests.unit.ipfs.test_gateways import by_format

Blocks = dict[Cid, bytes]
TREES = st.recursive(
    st.binary(max_size=40), lambda inner: st.tuples(st.binary(max_size=20), st.lists(inner, max_size=5)), max_leaves=12
)


class Decodes:
    """Count decoded nodes, by block, and long blocks decoded on the creating thread."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.long_on_this_thread = 0
        self._thread = threading.get_ident()

    def __call__(self, codec: int, block: bytes, allowance: FieldAllowance) -> Node:
        self.blocks.append(block)
        self.long_on_this_thread += len(block) > 20_000 and threading.get_ident() == self._thread
        return decode_node(codec, block, allowance)


def planted(tree: bytes | tuple[bytes, list[object]], blocks: Blocks) -> tuple[int, bytes, bytes]:
    """Add the tree's blocks; return its root's codec and block, and the file's bytes."""
    if isinstance(tree, bytes):
        blocks[cid_of(RAW, tree)] = tree
        return RAW, tree, tree
    own, children = tree
    parts = [planted(child, blocks) for child in children]  # type: ignore[arg-type]
    whole = own + b"".join(content for _, _, content in parts)
    block = node(2, own, *(("", codec, child) for codec, child, _ in parts), size=len(whole))
    blocks[cid_of(DAG_PB, block)] = block
    return DAG_PB, block, whole


@given(TREES)
def test_any_tree_is_its_leaves_in_order(tree: bytes | tuple[bytes, list[object]]) -> None:
    """A file of any shape is the nodes' bytes in order, and each block is decoded once."""
    blocks: Blocks = {}
    codec, root, content = planted(tree, blocks)
    with patch.object(unixfs, "decode_node", Decodes()) as decodes:
        # An empty leaf counts as a byte of the limit; there are twelve leaves at most.
        assert assemble_file(cid_of(codec, root), (), blocks, max_bytes=len(content) + 12) == content
    assert len(decodes.blocks) == len(set(decodes.blocks))


@given(TREES, st.data())
def test_a_damaged_tree_is_read_or_refused(tree: bytes | tuple[bytes, list[object]], data: st.DataObject) -> None:
    """Blocks damaged before hashing raise nothing but faults of iidq, within the limits."""
    blocks: Blocks = {}
    codec, root, _ = planted(tree, blocks)
    changed = bytearray(root)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=12))
    cid = cid_of(codec, bytes(changed))
    archive = car(*((known.codec, block) for known, block in blocks.items()), (codec, bytes(changed)))
    try:
        assert len(assemble_file(cid, ("a",) * data.draw(st.integers(0, 2)), read_car(archive), max_bytes=200)) <= 200
    except (ManifestFault, MissingBlock):
        return


@given(st.lists(st.tuples(st.integers(1, 5), st.binary(max_size=30) | st.integers(0, 2**60)), max_size=8))
def test_any_fields_are_read_or_refused(fields: list[tuple[int, bytes | int]]) -> None:
    """Well-formed protobuf of any content raises only faults of iidq."""
    message = b"".join(field(number, value) for number, value in fields)
    for block in (message, field(1, message), field(2, message) + field(1, field(1, 2))):
        try:
            assemble_file(cid_of(DAG_PB, block), (), {cid_of(DAG_PB, block): block}, max_bytes=100)
        except (ManifestFault, MissingBlock):
            continue


async def test_a_block_of_a_million_fields_ends_the_search() -> None:
    """A 2 MiB block with 4,000 links to it is decoded once, within the allowance, and never on the event loop."""
    root, block = countless_fields(4000)
    decodes = Decodes()
    fault = await _fault_of(root, car((DAG_PB, root), (DAG_PB, block)), decodes)
    assert (fault.code, "131,072 fields" in fault.message) == ("manifest.too_complex", True)
    # The root alone, found to have children, and then in the CAR.
    assert [len(decoded) for decoded in decodes.blocks] == [len(root), len(root), len(block)]
    assert not decodes.long_on_this_thread


async def test_a_single_block_of_a_million_fields_is_refused() -> None:
    """A file without a CAR is bounded in the same way."""
    block, decodes = tiny_fields(1_000_000), Decodes()
    assert (await _fault_of(block, b"", decodes)).code == "manifest.too_complex"
    assert (len(decodes.blocks), decodes.long_on_this_thread) == (1, 0)


async def _fault_of(root: bytes, archive: bytes, decodes: Decodes) -> ManifestFault:
    uri = parse_manifest_uri(f"ipfs://{cid_v0(root)}", allow_private=PUBLIC_ONLY)
    assert isinstance(uri, IpfsUri)
    async with serving(by_format({"raw": root, "car": archive})) as server:
        gateways = IpfsGateways([Gateway(server.url)], max_bytes=1 << 20)
        with patch.object(unixfs, "decode_node", decodes), pytest.raises(ManifestFault) as caught:
            await gateways.fetch(uri)
        await gateways.aclose()
    return caught.value


@pytest.mark.parametrize("depth", [1, 2])
def test_links_are_counted_before_they_are_followed(depth: int) -> None:
    """Links to small nodes with many links cost neither visits nor memory."""
    blocks: Blocks = {}
    block = wrap_file(b"x")
    for _ in range(depth):
        blocks[cid_of(DAG_PB, block)] = block
        block = node(2, None, *[("", DAG_PB, block)] * 4500)
    blocks[cid_of(DAG_PB, block)] = block
    with patch.object(unixfs, "decode_node", Decodes()) as decodes, pytest.raises(ManifestFault, match="4,096 blocks"):
        assemble_file(cid_of(DAG_PB, block), (), blocks, max_bytes=1 << 20)
    assert len(decodes.blocks) == 1


def test_empty_leaves_count_against_the_limit() -> None:
    """Empty leaves count against a manifest's limit, as a byte each."""
    empty = wrap_file(b"")
    root = node(2, None, *[("", DAG_PB, empty)] * 50)
    blocks = {cid_of(DAG_PB, block): block for block in (root, empty)}
    assert assemble_file(cid_of(DAG_PB, root), (), blocks, max_bytes=50) == b""
    with pytest.raises(ManifestFault, match="longer than 49 bytes"):
        assemble_file(cid_of(DAG_PB, root), (), blocks, max_bytes=49)


def test_an_archive_of_countless_blocks_is_not_read_to_its_end() -> None:
    """An archive with more blocks than a file may have is not read to its end."""
    numbered = [number.to_bytes(4) for number in range(9000)]
    assert len(read_car(car(*((RAW, block) for block in numbered)))) == 8192
    # Not even a forged block further on is found.
    read_car(car(*((RAW, block) for block in numbered)) + section(RAW, b"forged", named_after=b"genuine"))
    assert len(read_car(CAR_HEADER + section(RAW, b"x") * 8000 + section(RAW, b"y"))) == 2


@pytest.mark.parametrize(
    "body",
    [b"[" + b"{}," * 300_000 + b"0]", b"[" + b"1," * 300_000 + b"0]", b'{"a":' + b"[[]," * 200_000],
    ids=["objects", "numbers", "nested"],
)
def test_a_manifest_of_countless_values_is_refused(body: bytes) -> None:
    """The parser is not started on a manifest with too many values."""
    with patch.object(json, "loads") as parser, pytest.raises(ManifestFault) as caught:
        parse_manifest(body)
    assert caught.value.code == "manifest.too_complex"
    assert not parser.called


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["content_hash", "signature", "creator_did"]) | st.text(max_size=5), inner)
    ),
)


@given(JSON, st.data())
def test_any_manifest_is_read_or_refused(value: object, data: st.DataObject) -> None:
    """JSON of any content, also damaged, is read or raises ManifestFault."""
    body = bytearray(json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(
                [b"[", b"}", b'"', b"\\u", b"\xff", b"1e999", b"9" * 5000, b"\x00", b"NaN", b"\xed\xa0\x80"]
            )
        )
    try:
        parse_manifest(bytes(body))
    except ManifestFault:
        return
