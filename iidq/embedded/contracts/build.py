"""``python -m iidq.embedded.contracts.build SOLCJS…``: compile the Solidity sources of this folder.

The arguments are the command to run npm's ``solcjs``. The same compiler makes the same bytes of the same sources:
the code has no metadata and no paths of the machine.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iidq.embedded.contracts import CONTRACT_NAMES

SOLC_VERSION = "0.8.37"
EVM_VERSION = "paris"
"""No PUSH0, no transient storage: runs on every chain since the merge, and on all development chains."""

_FOLDER = Path(__file__).parent
_TIMEOUT_SECONDS = 120


def compile_contracts(solcjs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Compile all sources with the given command; return one artifact per contract's name.

    Raises :class:`SystemExit` with the compiler's own words if it complains, even if only by a warning.
    """
    sources = {f"{name}.sol": {"content": (_FOLDER / f"{name}.sol").read_text()} for name in CONTRACT_NAMES.values()}
    settings = {
        "evmVersion": EVM_VERSION,
        "optimizer": {"enabled": True, "runs": 200},
        "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
        "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
    }
    done = subprocess.run(
        [*solcjs, "--standard-json"],
        input=json.dumps({"language": "Solidity", "sources": sources, "settings": settings}),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=True,
    )
    # solcjs may print a line of its own before the JSON.
    output = json.loads(done.stdout[done.stdout.index("{") :])
    if errors := output.get("errors"):
        raise SystemExit("\n".join(error["formattedMessage"] for error in errors))
    return {name: _artifact(name, output["contracts"][f"{name}.sol"][name]) for name in CONTRACT_NAMES.values()}


def _artifact(name: str, compiled: dict[str, Any]) -> dict[str, Any]:
    return {
        "contractName": name,
        "sourceName": f"{name}.sol",
        "compiler": f"solc {SOLC_VERSION}",
        "evmVersion": EVM_VERSION,
        "abi": compiled["abi"],
        "bytecode": "0x" + compiled["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + compiled["evm"]["deployedBytecode"]["object"],
    }


def main(solcjs: Sequence[str]) -> None:
    """Write the artifacts next to their sources."""
    if not solcjs:
        raise SystemExit("name the command that runs solcjs; README.md beside this file has it")
    version = subprocess.run(
        [*solcjs, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True
    ).stdout.strip()
    if not version.startswith(f"{SOLC_VERSION}+"):
        raise SystemExit(f"this is solc {version}; the committed artifacts are made with {SOLC_VERSION}")
    for name, artifact in compile_contracts(solcjs).items():
        (_FOLDER / f"{name}.json").write_text(json.dumps(artifact, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
