"""Ethereum addresses: Keccak-256 and the EIP-55 checksum."""

from functools import lru_cache

from Crypto.Hash import keccak

from iidq.notation import ADDRESS

ZERO_ADDRESS = "0x" + "0" * 40


def keccak256(data: bytes) -> bytes:
    """Return the Keccak-256 digest, with the padding before FIPS 202, as Ethereum uses it."""
    return keccak.new(digest_bits=256, data=data).digest()


@lru_cache(maxsize=4096)
def checksum_address(address: str) -> str:
    """Return the EIP-55 form of ``0x`` and 40 hex digits of any case; raise ValueError for anything else."""
    if not ADDRESS.fullmatch(address):
        raise ValueError("an address is 0x and 40 hex digits")
    digits = address[2:].lower()
    nibbles = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if nibble >= "8" else digit for digit, nibble in zip(digits, nibbles, strict=False)
    )


def address_of_bytes(raw: bytes) -> str:
    """Return the EIP-55 form of 20 bytes."""
    return checksum_address("0x" + raw.hex())
