"""The call data of ``iidq register``."""

from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from iidq.cli.verification.register import register_call
from iidq.provenance.ethereum.address import keccak256


@given(content_hash=st.binary(min_size=32, max_size=32), uri=st.text(max_size=200))
def test_the_call_data_follows_the_abi(content_hash: bytes, uri: str) -> None:
    """``register(bytes32,string)``: the selector, then both arguments, for any text."""
    expected = keccak256(b"register(bytes32,string)")[:4] + encode(["bytes32", "string"], [content_hash, uri])
    assert register_call("0x" + content_hash.hex(), uri) == "0x" + expected.hex()
