"""Fixtures for tests with a chain; ``tests/conftest.py`` loads the fixtures by ``pytest_plugins``."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from iidq.embedded.development_chain.chain_process import DevelopmentChain, find_anvil

RpcCall = Callable[..., Any]
"""``call(method, *params)`` returns the whole reply, with ``result`` or ``error``."""


@pytest.fixture(scope="session", params=["py-evm", "anvil"])
def chain_program(request: pytest.FixtureRequest) -> str | None:
    """Return ``anvil`` of a :class:`DevelopmentChain`, for each chain in turn; skip anvil's tests without anvil."""
    if request.param == "py-evm":
        return None
    return find_anvil() or pytest.skip("no anvil: set ANVIL, or put it on PATH (npm package @foundry-rs/anvil)")


@pytest.fixture(scope="session")
def chain_url(chain_program: str | None) -> Iterator[str]:
    """Yield the URL of each chain in turn, one chain per test process: tests share its blocks and deploy separate
    registries.
    """
    with DevelopmentChain(anvil=chain_program) as chain:
        yield chain.url


@pytest.fixture(scope="session")
def development_chain() -> Iterator[str]:
    """Yield the URL of the chain of `iidq up`, one per test process."""
    with DevelopmentChain(anvil=find_anvil()) as chain:
        yield chain.url


@pytest.fixture(scope="session")
def py_evm_chain() -> Iterator[str]:
    """Yield the URL of the py-evm chain, for tests of py-evm alone."""
    with DevelopmentChain() as chain:
        yield chain.url


@pytest.fixture
def chain_rpc(chain_url: str) -> Iterator[RpcCall]:
    """Return a client of each chain in turn."""
    with _caller(chain_url) as call:
        yield call


@pytest.fixture
def py_evm_rpc(py_evm_chain: str) -> Iterator[RpcCall]:
    """Return a client of the py-evm chain."""
    with _caller(py_evm_chain) as call:
        yield call


@contextlib.contextmanager
def _caller(url: str) -> Iterator[RpcCall]:
    # Plain HTTP: reading the certificate authorities would take longer than most tests.
    with httpx.Client(timeout=30, verify=False) as client:  # noqa: S501

        def call(method: str, *params: Any) -> Any:
            reply = client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            return reply.raise_for_status().json()

        yield call
