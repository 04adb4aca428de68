"""The processes of the development chains, and the choice between them."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from iidq.embedded.development_chain.chain_process import ChainNotStarted, DevelopmentChain, find_anvil
from iidq.errors import SettingsFault


@pytest.fixture
def chain(chain_program: str | None) -> Iterator[DevelopmentChain]:
    """Yield a chain for a single test, with a separate id."""
    with DevelopmentChain(anvil=chain_program, chain_id=777) as running:
        yield running


def rpc(chain: DevelopmentChain, method: str, *params: Any) -> Any:
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    reply = httpx.post(chain.url, json=call, timeout=30, verify=False)  # noqa: S501 - plain HTTP, and so faster
    return reply.json()["result"]


def newest_timestamp(chain: DevelopmentChain) -> int:
    return int(rpc(chain, "eth_getBlockByNumber", "latest", False)["timestamp"], 16)


def test_the_clock_can_be_put_forward(chain: DevelopmentChain) -> None:
    """The chain has the given id, and moving the clock makes the next block later by as much."""
    assert rpc(chain, "eth_chainId") == hex(777)
    before = newest_timestamp(chain)
    rpc(chain, "evm_increaseTime", 1000)
    rpc(chain, "evm_mine")
    assert before + 1000 <= newest_timestamp(chain) < before + 1200


def test_a_stopped_chain_starts_again_empty(chain_program: str | None) -> None:
    """A stopped chain has no URL and answers nothing; a new start gives an empty chain."""
    chain = DevelopmentChain(anvil=chain_program)
    chain.start()
    url = chain.url
    rpc(chain, "evm_mine")
    chain.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.post(url, json={})
    with pytest.raises(ChainNotStarted):
        _ = chain.url
    with chain:
        assert rpc(chain, "eth_blockNumber") == "0x0"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_py_evm_silently(how: signal.Signals) -> None:
    """After a signal, py-evm exits with code 0, without output besides the line with its address."""
    module = "iidq.embedded.development_chain.chain_server"
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--port", "0", "--chain-id", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    address = process.stdout.readline().decode().removeprefix("Listening on ").strip()
    with httpx.Client() as client:  # an open connection does not delay the end
        client.post(f"http://{address}", json={"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"})
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"", b"")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end a child at its parent's death")
def test_it_dies_with_its_parent(chain_program: str | None) -> None:
    """A parent killed with -9 leaves no chain behind."""
    script = (
        "import sys, signal\n"
        "from iidq.embedded.development_chain.chain_process import DevelopmentChain\n"
        f"chain = DevelopmentChain(anvil={chain_program!r}); chain.start()\n"
        "print(chain.pid, flush=True)\n"
        "signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    handle = os.pidfd_open(int(parent.stdout.readline()))
    try:
        parent.kill()
        parent.communicate(timeout=30)
        ended, _, _ = select.select([handle], [], [], 30)
        assert ended == [handle]
    finally:
        os.close(handle)


def test_a_port_in_use_is_reported(chain: DevelopmentChain, chain_program: str | None) -> None:
    """A start on a port in use fails with the output of the process, and leaves nothing running."""
    second = DevelopmentChain(anvil=chain_program, port=int(chain.url.rpartition(":")[2]))
    with pytest.raises(ChainNotStarted, match=r"another process listens|Address already in use"):
        second.start()
    assert second.pid is None


def test_a_long_run_does_not_fill_the_output(chain: DevelopmentChain) -> None:
    """A chain that prints every call still answers after more output than a pipe holds."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}
    batch = [call] * 1000
    for _ in range(10):
        assert len(httpx.post(chain.url, json=batch, timeout=30, verify=False).json()) == 1000  # noqa: S501


@pytest.fixture
def anvil_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a program named anvil in the only folder on PATH; ANVIL is unset."""
    program = tmp_path / "anvil"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANVIL", raising=False)
    return program


def test_anvil_is_taken_from_path_or_by_its_variable(anvil_on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ANVIL names the anvil program; without ANVIL the program on PATH is used, and without both there is none."""
    assert find_anvil() == str(anvil_on_path)
    other = anvil_on_path.rename(anvil_on_path.with_name("other"))
    assert find_anvil() is None
    for named in ("other", str(other)):
        monkeypatch.setenv("ANVIL", named)
        assert find_anvil() == str(other)


def test_a_missing_anvil_is_one_clear_line(anvil_on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ANVIL without a program behind the name is a fault, although PATH has an anvil."""
    monkeypatch.setenv("ANVIL", "/nowhere/anvil")
    with pytest.raises(SettingsFault, match=r"ANVIL=/nowhere/anvil: expected the path of an anvil program"):
        find_anvil()
