"""The committed artifacts belong to the committed sources."""

import json
import os
import shutil
from pathlib import Path
from typing import get_args

import pytest
from eth_utils.crypto import keccak

import iidq.embedded.contracts as contracts
from iidq.embedded.contracts import CONTRACT_NAMES, Layout, compiled_contract
from iidq.embedded.contracts.build import compile_contracts

layouts = pytest.mark.parametrize("layout", get_args(Layout))


@layouts
def test_the_code_answers_to_the_known_names(layout: Layout) -> None:
    """Selectors and event topic in the code are the same as in the registries on public chains."""
    contract = compiled_contract(layout)
    assert keccak(text="entries(bytes32)")[:4].hex() == "267b6922"
    topic = keccak(text="ContentRegistered(bytes32,address,string,uint64)")
    assert topic.hex() == "d9807b1b3c9429c865f0beb8aabf1628bedeb04a0d6f3f8dc2b42f5989816ecb"
    for function in (
        "entries(bytes32)",
        "register(bytes32,string)",
        "updateManifest(bytes32,string)",
        "revoke(bytes32)",
    ):
        assert keccak(text=function)[:4] in contract.deployed_bytecode
    assert topic in contract.deployed_bytecode
    assert contract.bytecode.endswith(contract.deployed_bytecode)


@layouts
def test_the_abi_has_the_layout(layout: Layout) -> None:
    """``entries`` returns its fields in the order of the layout."""
    (entries,) = (item for item in compiled_contract(layout).abi if item.get("name") == "entries")
    fields = [f"{output['type']} {output['name']}" for output in entries["outputs"]]
    if layout == "old":
        assert fields == ["address creator", "bytes32 contentHash", "string manifestURI", "uint64 timestamp"]
    else:
        assert fields == ["address creator", "uint64 timestamp", "string manifestURI"]


def test_an_unknown_layout_is_refused() -> None:
    """An unknown layout is refused, and the message names the known layouts."""
    with pytest.raises(ValueError, match="new, old"):
        compiled_contract("newer")  # type: ignore[arg-type]


def test_compiling_again_gives_the_committed_artifacts() -> None:
    """Compiling with the pinned compiler gives the committed artifacts byte for byte; skipped without solcjs."""
    solcjs = os.environ.get("SOLCJS") or shutil.which("solcjs")
    if not solcjs:
        pytest.skip("no solcjs: set SOLCJS, or put it on PATH (npm package solc, version in contracts/build.py)")
    folder = Path(contracts.__file__).parent
    committed = {name: json.loads((folder / f"{name}.json").read_text()) for name in CONTRACT_NAMES.values()}
    assert compile_contracts([solcjs]) == committed
