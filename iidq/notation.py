"""The text forms of hashes, addresses, bytes and accounts, one pattern each; use ``fullmatch``. Pure."""

import re
from typing import Final

ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
"""An Ethereum address in any case."""
HASH: Final = re.compile(r"0x[0-9a-fA-F]{64}")
"""A hash of 32 bytes in any case."""
HEX_BYTES: Final = re.compile(r"0[xX](?:[0-9a-fA-F]{2})*")
"""Any number of bytes in any case, as ethers accepts them."""
CHAIN_ACCOUNT: Final = re.compile(r"(?:eip155:([1-9][0-9]{0,15}):)?(0x[0-9a-fA-F]{40})")
"""An address with an optional chain (CAIP-10, namespace eip155); groups: chain id, address."""
