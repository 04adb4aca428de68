"""Unsigned LEB128 integers, as protobuf, CIDs and CARs write their lengths and numbers."""

_MAX_VARINT_BYTES = 9


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read one integer below 2^63; returns it and where it ends. Raises :class:`ValueError` if it is cut off."""
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("a number is longer than 63 bits")


def write_varint(value: int) -> bytes:
    """The shortest form of a number that is not negative."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
