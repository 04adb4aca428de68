"""CARv1: blocks on their way, each with its CID, checked one by one as they are read.

Follows the CARv1 specification (ipld.io/specs/transport/car/carv1): a header, then sections of
``varint(length) CID block``. The header's roots are ignored: where to begin is known from the CID asked for.
"""

from collections.abc import Mapping

from iidq.provenance.ipfs.cid import Cid, UnsupportedCid, read_cid, read_varint

MAX_BLOCK_BYTES = 2 << 20
# Twice the nodes that a file may have: some gateways send a block once per link to it.
_MAX_BLOCKS = 8192
_MAX_HEADER_BYTES = 8192
# The DAG-CBOR of `"version": 1`, which every CARv1 header contains.
_VERSION_1 = b"gversion\x01"


class UnusableCar(ValueError):
    """The archive is cut off, malformed or not version 1."""


class LyingCar(ValueError):
    """A block's bytes are not what its CID names."""


def read_car(archive: bytes, *, cut_off: bool = False) -> Mapping[Cid, bytes]:
    """Verified blocks by CID; blocks under CIDs that cannot be verified here are left out.

    ``cut_off`` says that reading stopped at a limit: then a section that is cut off ends the archive instead of
    making it unusable. Reading also stops after 8,192 blocks, more than a file may have. Raises :class:`UnusableCar`
    and :class:`LyingCar`. Takes about a millisecond per MiB and 4 µs per block.
    """
    at = _after_header(archive)
    blocks: dict[Cid, bytes] = {}
    for _ in range(_MAX_BLOCKS):
        if at >= len(archive):
            break
        try:
            length, start = read_varint(archive, at)
        except ValueError as error:
            if cut_off:
                break
            raise UnusableCar(str(error)) from None
        if length > MAX_BLOCK_BYTES + 256:
            raise UnusableCar(f"a block is longer than {MAX_BLOCK_BYTES} bytes")
        at = start + length
        if at > len(archive):
            if cut_off:
                break
            raise UnusableCar("the archive is cut off inside a block")
        try:
            cid, end = read_cid(archive, start)
        except UnsupportedCid:
            continue
        except ValueError as error:
            raise UnusableCar(str(error)) from None
        if end > at:
            raise UnusableCar("a section is shorter than its CID")
        if at - end > MAX_BLOCK_BYTES:
            raise UnusableCar(f"a block is longer than {MAX_BLOCK_BYTES} bytes")
        block = archive[end:at]
        if not cid.names(block):
            raise LyingCar("a block's bytes are not what its CID names")
        blocks[cid] = block
    return blocks


def _after_header(archive: bytes) -> int:
    try:
        length, start = read_varint(archive, 0)
    except ValueError:
        raise UnusableCar("no CAR header") from None
    header = archive[start : start + length] if length <= _MAX_HEADER_BYTES else b""
    if len(header) != length or _VERSION_1 not in header:
        raise UnusableCar("not a CAR of version 1")
    return start + length
