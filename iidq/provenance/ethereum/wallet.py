"""A contract wallet's word on a signature: the call and its answer as EIP-1271 has them. Pure.

web3's contract call would have us call any address that the wallet names (EIP-3668), at several times the CPU.
"""

from typing import Final

# bytes4(keccak256("isValidSignature(bytes32,bytes)")): the function's selector, and what it returns for "yes".
_MAGIC: Final = bytes.fromhex("1626ba7e")
_YES: Final = _MAGIC + bytes(28)


def encode_is_valid_signature_call(digest: bytes, signature: bytes) -> str:
    """Return the call data of ``isValidSignature(digest, signature)`` in hex (Solidity ABI specification)."""
    head = digest + (0x40).to_bytes(32) + len(signature).to_bytes(32)
    return "0x" + (_MAGIC + head + signature + bytes(-len(signature) % 32)).hex()


def accepts_signature(returned: bytes | None) -> bool:
    """Whether what the wallet returned is EIP-1271's yes; None stands for a call that it refused.

    The whole word counts: a contract that answers anything to everything has said nothing.
    """
    return returned is not None and returned[:32] == _YES
