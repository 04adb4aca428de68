"""The compiled ContentRegistry contracts; ``README.md`` in this folder says how to compile them again."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

Layout = Literal["new", "old"]

CONTRACT_NAMES: dict[Layout, str] = {"new": "ContentRegistry", "old": "ContentRegistryV1"}
"""``new``: ``entries`` returns (creator, timestamp, manifestURI). ``old``: (creator, contentHash, manifestURI,
timestamp)."""


@dataclass(frozen=True)
class Contract:
    """One compiled contract."""

    name: str
    """Name in the Solidity source."""
    abi: list[dict[str, Any]]
    """The ABI as solc writes it."""
    bytecode: bytes
    """The code that a deployment sends."""
    deployed_bytecode: bytes
    """The code that the chain then holds."""


def compiled_contract(layout: Layout) -> Contract:
    """Return the registry of this layout; raise :class:`ValueError` for an unknown layout."""
    if layout not in CONTRACT_NAMES:
        raise ValueError(f"layout is {layout!r}; expected one of {', '.join(CONTRACT_NAMES)}")
    name = CONTRACT_NAMES[layout]
    artifact = json.loads(files(__name__).joinpath(f"{name}.json").read_text())
    return Contract(
        name,
        artifact["abi"],
        bytes.fromhex(artifact["bytecode"][2:]),
        bytes.fromhex(artifact["deployedBytecode"][2:]),
    )
