"""Memory that is needed again and again is kept instead of given back to the system each time."""

from typing import Final

_KEPT_BYTES: Final = 4 << 20


def keep_freed_memory() -> None:
    """Let the C library reuse blocks of up to 4 MiB; call it once per process.

    glibc maps blocks above 128 KiB one by one and shrinks its heap as soon as as much is free, so each piece of an
    upload (up to 256 KiB) would be new zeroed pages: 0.43 ns per byte copied instead of 0.025 (hashing takes 0.56).
    Its thresholds rise to the size of a mapped block that is freed (mallopt(3), M_MMAP_THRESHOLD). Other allocators
    do not mind.
    """
    bytearray(_KEPT_BYTES)
