"""EIP-55 checksums."""

import pytest

from iidq.provenance.ethereum.address import checksum_address, keccak256


@pytest.mark.parametrize(
    "address",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
    ],
)
def test_vectors_of_the_standard(address: str) -> None:
    """The examples of EIP-55 get their checksums from any case."""
    assert checksum_address(address.lower()) == address
    assert checksum_address("0x" + address[2:].upper()) == address


@pytest.mark.parametrize(
    "text", ["", "0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x" + "g" * 40, "0x" + "0" * 41]
)
def test_anything_else_is_refused(text: str) -> None:
    """Text other than an address raises an error."""
    with pytest.raises(ValueError, match="40 hex digits"):
        checksum_address(text)


def test_keccak_is_ethereums() -> None:
    """Keccak-256 of no bytes is Ethereum's constant, not SHA3-256's."""
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
