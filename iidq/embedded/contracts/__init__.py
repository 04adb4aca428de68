"""The compiled ContentRegistry contracts; ``README.md`` beside this file says how to compile them again."""

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
    """One compiled contract: what a deployment sends, and what then lies on the chain."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    deployed_bytecode: bytes


def compiled_contract(layout: Layout) -> Contract:
    """The registry of this layout; raises :class:`ValueError` for any other word."""
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
