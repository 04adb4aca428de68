"""Test ``iidq register`` on the chain of `iidq up`, on a substitute for a real chain, and with each obstacle."""

import asyncio
import hashlib
import json
import re
import secrets
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account

from iidq.embedded.demo_registry import deploy_registry
from iidq.embedded.development_chain.chain_process import DevelopmentChain
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from tests.cli.conftest import Done, Playground
from tests.cli.shell import curl

Iidq = Callable[..., Done]
KEY = DEVELOPMENT_KEYS[3]
CREATOR = Account.from_key(KEY).address
REAL_CHAIN_ID = 4242


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Unregistered content, with a name full of shell characters."""
    path = tmp_path / "my song's take.wav"
    path.write_bytes(secrets.token_bytes(100_000))
    return path


@pytest.fixture(scope="module")
def real_chain() -> Iterator[tuple[str, str]]:
    """A chain with another id than the development chain, and its registry."""
    with DevelopmentChain(chain_id=REAL_CHAIN_ID) as chain:
        yield chain.url, asyncio.run(deploy_registry(chain.url, DEVELOPMENT_KEYS[0]))


def rpc(url: str, method: str, *params: Any) -> Any:
    reply = httpx.post(url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, trust_env=False)
    return reply.json()["result"]


def test_the_way_from_a_file_to_its_verdict(iidq: Iidq, playground: Playground, file: Path) -> None:
    """A file registered with the values printed by `iidq up` verifies by both printed commands."""
    done = iidq(
        *("register", str(file), "--rpc-url", playground.rpc_url, "--registry", playground.registry),
        *("--publish", playground.publish_url, "--server", playground.api),
    )
    assert (done.returncode, done.stderr) == (0, "")
    [verify] = re.findall(r"^  (iidq verify .*)$", done.stdout, re.MULTILINE)
    verified = iidq(*shlex.split(verify)[1:])
    assert (verified.returncode, verified.stdout.startswith("OK: ")) == (0, True)
    [command] = re.findall(r"^  (curl .*)$", done.stdout, re.MULTILINE)
    assert json.loads(curl(command))["result"]["status"] == "OK"
    again = iidq("register", str(file), "--rpc-url", playground.rpc_url, "--publish", playground.publish_url, "--json")
    assert (again.returncode, json.loads(again.stdout)["alreadyRegistered"]) == (0, True)


def test_on_a_real_chain(iidq: Iidq, real_chain: tuple[str, str], file: Path) -> None:
    """PRIVATE_KEY signs a transaction for its chain and is never shown; the next steps are printed.

    A dry run changes nothing, neither in the folder nor on the chain.
    """
    url, registry = real_chain
    environment = {"PRIVATE_KEY": KEY, "RPC_URL": url, "DEFAULT_REGISTRY": f"eip155:{REAL_CHAIN_ID}:{registry}"}
    nonce = rpc(url, "eth_getTransactionCount", CREATOR, "pending")
    tried = iidq("register", str(file), "--dry-run", **environment)
    assert (tried.returncode, list(file.parent.iterdir())) == (0, [file])
    assert rpc(url, "eth_getTransactionCount", CREATOR, "pending") == nonce
    assert re.search(r"costs +at most 0\.\d+ ether", tried.stdout)

    done = iidq("register", str(file), "--json", **environment)
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    manifest = file.with_name(f"{file.name}.manifest.json")
    transaction = rpc(url, "eth_getTransactionByHash", told["txHash"])
    assert (transaction["type"], int(transaction["chainId"], 16)) == ("0x2", REAL_CHAIN_ID)
    assert told["contentHash"] == "0x" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["creator"] == CREATOR
    assert json.loads(manifest.read_bytes())["creator_did"] == f"did:pkh:eip155:{REAL_CHAIN_ID}:{CREATOR}"

    again = iidq("register", str(file), **environment)
    assert again.returncode == 0
    for part in ("already, with this manifest", "ipfs add --cid-version 0", told["manifestUri"], "iidq verify"):
        assert part in again.stdout
    assert KEY[2:] not in tried.stdout + done.stdout + again.stdout + tried.stderr + done.stderr + again.stderr


def test_a_manifest_on_the_web_is_told_where_to_go(iidq: Iidq, real_chain: tuple[str, str], file: Path) -> None:
    """The registered URI is the URI from the option, and a second run uses the manifest of the first run."""
    url, registry = real_chain
    arguments = (
        *("register", str(file), "--rpc-url", url, "--registry", registry),
        *("--manifest-file", "m.json", "--manifest-uri", "https://example.org/m.json"),
    )
    first = iidq(*arguments, PRIVATE_KEY=KEY)
    kept = Path("m.json").read_bytes()
    second = iidq(*arguments, PRIVATE_KEY=KEY)
    assert (first.returncode, second.returncode, Path("m.json").read_bytes()) == (0, 0, kept)
    assert "  https://example.org/m.json\n" in first.stdout


def _not_possible(url: str, registry: str, file: Path) -> dict[str, tuple[tuple[str, ...], dict[str, str], int, str]]:
    key, chain = {"PRIVATE_KEY": KEY}, ("--rpc-url", url)
    here = (*chain, "--registry", registry)
    return {
        "no chain": ((), {}, 1, "RPC_URL"),
        "no key": (here, {}, 1, "PRIVATE_KEY"),
        "no registry": (chain, key, 1, "DEFAULT_REGISTRY"),
        "another chain": ((*here, "--chain", "1"), key, 1, f"serves chain {REAL_CHAIN_ID}, not 1"),
        "registry elsewhere": ((*chain, "--registry", f"eip155:1:{registry}"), key, 1, "the registry is on 1"),
        "no contract": ((*chain, "--registry", "0x" + "1" * 40), key, 1, "no contract"),
        "no funds": (here, {"PRIVATE_KEY": "0x" + "7" * 64}, 1, "holds 0 ether"),
        "private manifest": ((*here, "--manifest-uri", "http://10.0.0.1/m"), key, 1, "FETCH_ALLOW_PRIVATE"),
        "wrong address": ((*chain, "--registry", "0x1"), key, 1, "expected 0x and 40 hex digits"),
        "foreign manifest": ((*here, "--manifest-file", str(file)), key, 1, "no manifest of this content"),
        "node away": (("--rpc-url", "http://127.0.0.1:9", "--registry", registry), key, 2, "could not be reached"),
        "publisher away": ((*here, "--publish", "http://127.0.0.1:9"), key, 1, "did not take the manifest"),
    }


@pytest.mark.parametrize("case", _not_possible("", "", Path()))
def test_where_it_is_not_possible(iidq: Iidq, real_chain: tuple[str, str], file: Path, case: str) -> None:
    """Each obstacle gives one line with cause and remedy, and no transaction."""
    url, registry = real_chain
    arguments, environment, code, said = _not_possible(url, registry, file)[case]
    sent = rpc(url, "eth_getTransactionCount", CREATOR, "pending")
    done = iidq("register", str(file), *arguments, **environment)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done
    assert said in done.stderr
    assert rpc(url, "eth_getTransactionCount", CREATOR, "pending") == sent


def test_what_another_has_registered_stays_theirs(iidq: Iidq, real_chain: tuple[str, str], file: Path) -> None:
    """Content registered by another account, or under another manifest, gives exit code 1 and the registered values."""
    url, registry = real_chain
    arguments = ("register", str(file), "--rpc-url", url, "--registry", registry)
    assert iidq(*arguments, PRIVATE_KEY=KEY).returncode == 0
    theirs = iidq(*arguments, "--manifest-file", "other.json", PRIVATE_KEY=DEVELOPMENT_KEYS[4])
    assert (theirs.returncode, f"already, by {CREATOR}" in theirs.stderr) == (1, True)
    moved = iidq(*arguments, "--manifest-uri", "https://example.org/other.json", PRIVATE_KEY=KEY)
    assert (moved.returncode, "already, by this account; its manifest is ipfs://" in moved.stderr) == (1, True)
