"""EIP-1271's call and answer."""

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from iidq.provenance.ethereum.registry import accepts_signature, encode_is_valid_signature_call

MAGIC = keccak(text="isValidSignature(bytes32,bytes)")[:4]


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_the_call_is_abi_encoded(digest: bytes, signature: bytes) -> None:
    """The call data is what eth_abi makes of the function and its arguments, for signatures of any length."""
    expected = MAGIC + encode(["bytes32", "bytes"], [digest, signature])
    assert encode_is_valid_signature_call(digest, signature) == "0x" + expected.hex()


@pytest.mark.parametrize(
    ("returned", "accepted"),
    [
        (MAGIC + bytes(28), True),
        (MAGIC + bytes(60), True),
        (MAGIC, False),
        (MAGIC + bytes(27), False),
        (bytes(28) + MAGIC, False),
        (MAGIC + bytes(27) + b"\x01", False),
        (b"\xff" * 32, False),
        (b"", False),
        (None, False),
    ],
)
def test_only_the_whole_word_is_a_yes(returned: bytes | None, accepted: bool) -> None:
    """The magic value counts as a whole left-aligned word; nothing else does."""
    assert accepts_signature(returned) is accepted
