"""Fixtures for tests that need a chain; ``tests/conftest.py`` loads them by ``pytest_plugins``."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from iidq.embedded.development_chain.chain_process import DevelopmentChain
from iidq.process import die_with_parent

RpcCall = Callable[..., Any]
"""``call(method, *params)``: the whole reply, with ``result`` or ``error``."""

_ANVIL_LISTENS = re.compile(rb"Listening on (127\.0\.0\.1:\d+)")


@pytest.fixture(scope="session")
def development_chain() -> Iterator[str]:
    """URL of our own development chain, one per test process: tests share its blocks and deploy their own registry."""
    with DevelopmentChain() as chain:
        yield chain.url


@pytest.fixture(scope="session")
def anvil() -> Iterator[str]:
    """URL of an anvil, found through ``ANVIL`` or ``PATH``; tests that ask for it are skipped where there is none."""
    program = os.environ.get("ANVIL") or shutil.which("anvil")
    if not program:
        pytest.skip("no anvil: set ANVIL, or put it on PATH (npm package @foundry-rs/anvil)")
    process = subprocess.Popen(
        # One slot per epoch: otherwise its safe and finalized blocks stay block 0.
        [program, "--host", "127.0.0.1", "--port", "0", "--slots-in-an-epoch", "1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    assert process.stdout is not None
    try:
        said = b""
        for line in process.stdout:
            said += line
            if match := _ANVIL_LISTENS.search(line):
                yield f"http://{match[1].decode()}"
                break
        else:
            pytest.fail(f"anvil did not start:\n{said.decode(errors='replace')}")
    finally:
        # npm's anvil is a script that runs the real one: both are in the session that we started.
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=10)


@pytest.fixture(scope="session", params=["development_chain", "anvil"])
def chain_url(request: pytest.FixtureRequest) -> str:
    """URL of each chain in turn."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def chain_rpc(chain_url: str) -> Iterator[RpcCall]:
    """Calls each chain in turn."""
    with _caller(chain_url) as call:
        yield call


@pytest.fixture
def development_rpc(development_chain: str) -> Iterator[RpcCall]:
    """Calls our own development chain."""
    with _caller(development_chain) as call:
        yield call


@contextlib.contextmanager
def _caller(url: str) -> Iterator[RpcCall]:
    # Plain HTTP: reading the certificate authorities would take longer than most tests.
    with httpx.Client(timeout=30, verify=False) as client:  # noqa: S501

        def call(method: str, *params: Any) -> Any:
            reply = client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            return reply.raise_for_status().json()

        yield call
