"""Blocks and archives as made by IPFS implementations, written from the specifications for the tests."""

import hashlib

from iidq.provenance.ipfs.cid import DAG_PB, RAW, Cid, write_varint

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
CAR_HEADER = bytes.fromhex("11a265726f6f7473806776657273696f6e01")


def field(number: int, value: bytes | int) -> bytes:
    """Return a protobuf field."""
    if isinstance(value, int):
        return write_varint(number << 3) + write_varint(value)
    return write_varint(number << 3 | 2) + write_varint(len(value)) + value


def cid_bytes(codec: int, block: bytes) -> bytes:
    """Return the binary CID, version 1."""
    return b"\x01" + write_varint(codec) + b"\x12\x20" + hashlib.sha256(block).digest()


def base58(data: bytes) -> str:
    """Return Base58btc."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def cid_v0(block: bytes) -> str:
    """Return the Qm… text of a dag-pb block."""
    return base58(b"\x12\x20" + hashlib.sha256(block).digest())


def cid_v1(codec: int, block: bytes) -> str:
    """Return a CID's text in base16, the plainest of the multibases."""
    return "f" + cid_bytes(codec, block).hex()


def cid_of(codec: int, block: bytes) -> Cid:
    """Return the parsed CID."""
    return Cid(codec, hashlib.sha256(block).digest())


def node(kind: int, content: bytes | None, *links: tuple[str, int, bytes], size: int | None = None) -> bytes:
    """Return a dag-pb block with UnixFS data; links are (name, codec, block)."""
    data = field(1, kind)
    if content is not None:
        data += field(2, content)
    if size is not None:
        data += field(3, size)
    out = b"".join(
        field(2, field(1, cid_bytes(codec, block)) + field(2, name.encode()) + field(3, len(block)))
        for name, codec, block in links
    )
    return out + field(1, data)


def split_file(content: bytes, chunk_bytes: int) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Cut a file into raw leaves; return the root block and every block."""
    leaves = [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)]
    root = node(2, None, *(("", RAW, leaf) for leaf in leaves), size=len(content))
    return root, [(DAG_PB, root), *((RAW, leaf) for leaf in leaves)]


def section(codec: int, block: bytes, *, named_after: bytes | None = None) -> bytes:
    """Return a CAR section; ``named_after`` replaces the CID by another block's."""
    payload = cid_bytes(codec, block if named_after is None else named_after) + block
    return write_varint(len(payload)) + payload


def car(*blocks: tuple[int, bytes]) -> bytes:
    """Return a CARv1 of the blocks."""
    return CAR_HEADER + b"".join(section(codec, block) for codec, block in blocks)


def tiny_fields(count: int) -> bytes:
    """Return a well-formed file of one block with ``count`` UnixFS fields of two bytes."""
    return field(1, field(1, 2) + field(4, 1) * count)


def countless_fields(links: int) -> tuple[bytes, bytes]:
    """Return a root with ``links`` links to one block of 2 MiB, and the block of a million fields."""
    block = tiny_fields(1_000_000)
    link = node(2, None, ("", DAG_PB, block)).removesuffix(node(2, None))
    return link * links + node(2, None), block
