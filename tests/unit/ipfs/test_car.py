"""CAR archives, checked block by block."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.provenance.ipfs.car import MAX_BLOCK_BYTES, LyingCar, UnusableCar, read_car
from iidq.provenance.ipfs.cid import DAG_PB, RAW, read_varint, write_varint
from tests.unit.ipfs.ipfs_blocks import CAR_HEADER, car, cid_of, section

BLOCKS = st.lists(st.tuples(st.sampled_from([RAW, DAG_PB]), st.binary(max_size=300)), max_size=6)


@given(st.integers(0, 2**63 - 1))
def test_numbers_are_read_back(value: int) -> None:
    """A written number is read back unchanged."""
    data = write_varint(value)
    assert read_varint(b"x" + data, 1) == (value, 1 + len(data))


@given(BLOCKS)
def test_blocks_are_found_by_cid(blocks: list[tuple[int, bytes]]) -> None:
    """Every block of an archive is found under its CID."""
    assert read_car(car(*blocks)) == {cid_of(codec, block): block for codec, block in blocks}


@given(BLOCKS.filter(bool), st.data())
def test_a_cut_off_archive_is_noticed(blocks: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """An archive cut inside a section is unusable; an archive cut between sections lacks blocks."""
    whole = car(*blocks)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        found = read_car(cut)
    except UnusableCar:
        return
    assert len(cut) < len(whole)
    assert cut == CAR_HEADER + b"".join(section(*block) for block in blocks)[: len(cut) - len(CAR_HEADER)]
    assert set(found.values()) <= {block for _, block in blocks}


def test_a_section_cut_off_at_our_own_limit_is_left_out() -> None:
    """When reading stops at the own limit, the blocks before the limit still count."""
    archive = car((RAW, b"one"), (RAW, b"two"))
    assert read_car(archive[:-1], cut_off=True) == {cid_of(RAW, b"one"): b"one"}


def test_a_block_under_another_blocks_cid_is_a_lie() -> None:
    """Bytes that do not match the CID are never returned."""
    with pytest.raises(LyingCar):
        read_car(CAR_HEADER + section(RAW, b"forged", named_after=b"genuine"))


def test_blocks_that_cannot_be_verified_are_left_out() -> None:
    """A block under an identity CID is skipped, not believed."""
    identity = b"\x01\x55\x00\x03abc"
    archive = CAR_HEADER + write_varint(len(identity)) + identity + section(RAW, b"x")
    assert read_car(archive) == {cid_of(RAW, b"x"): b"x"}


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"<!doctype html><title>Gateway</title>",
        b"\xff" * 20,
        bytes.fromhex("0aa16776657273696f6e02"),
        CAR_HEADER[:-1],
        CAR_HEADER + b"\x00",
        CAR_HEADER + b"\x80",
        CAR_HEADER + b"\x05\x12\x20abc",
        CAR_HEADER + write_varint(MAX_BLOCK_BYTES + 1000) + b"x",
    ],
)
def test_other_bytes_are_no_archive(archive: bytes) -> None:
    """HTML, CARv2, empty answers and overlong blocks are unusable."""
    with pytest.raises(UnusableCar):
        read_car(archive)


def test_a_block_over_the_limit_is_refused() -> None:
    """A block of two MiB is read; a longer block makes the archive unusable."""
    assert len(read_car(car((RAW, bytes(MAX_BLOCK_BYTES))))) == 1
    with pytest.raises(UnusableCar, match="longer"):
        read_car(car((RAW, bytes(MAX_BLOCK_BYTES + 1))))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_unusable(data: bytes) -> None:
    """Arbitrary sections are read or unusable, and raise no other error."""
    try:
        read_car(CAR_HEADER + data)
    except (UnusableCar, LyingCar):
        return
