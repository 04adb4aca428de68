"""Directions of imports, fast starts, and SQL in separate files: rules kept by machine."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import iidq

ROOT = Path(iidq.__file__).parent
MODULES = {
    ".".join(("iidq", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
PURE = {
    "iidq.concurrency.circuit_breaker",
    "iidq.bullmq.keys",
    "iidq.bullmq.list_edits",
    "iidq.bullmq.outline",
    "iidq.bullmq.plan",
    "iidq.errors",
    "iidq.guarded_http.addresses",
    "iidq.notation",
    "iidq.observability.redaction",
    "iidq.database.sqlstates",
    "iidq.setting_values.checks",
    "iidq.setting_values.redis_url",
    "iidq.portable_values",
    "iidq.redis.signer",
    "iidq.rate_window",
    "iidq.provenance.ethereum.address",
    "iidq.provenance.proof.canonical_json",
    "iidq.provenance.ipfs.car",
    "iidq.provenance.ipfs.cid",
    "iidq.provenance.ipfs.unixfs",
    "iidq.provenance.conclusion",
    "iidq.provenance.digest",
    "iidq.provenance.manifest",
    "iidq.provenance.proof.proof_signature",
    "iidq.provenance.ethereum.registry",
    "iidq.provenance.ethereum.signature",
    "iidq.strict_json",
    "iidq.queue.backoff",
    "iidq.queue.identifiers",
    "iidq.queue.processing.claiming",
    "iidq.queue.job",
    "iidq.queue.outcome",
    "iidq.queue.read.paging",
    "iidq.queue.notify.hint_bus",
    "iidq.subject",
    "iidq.webhooks.delivery",
    "iidq.webhooks.event",
}
HEAVY = ("web3", "eth_account", "eth_tester", "eth")
"""Heavy packages: imports of more than half a second together. ``eth`` is py-evm."""


def imported(module: str) -> set[str]:
    """Return every iidq module imported by ``module``, anywhere in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(
                full if (full := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            )
    return {name for name in found if name == "iidq" or name.startswith("iidq.")}


def inside(package: str, names: set[str]) -> set[str]:
    return {name for name in names if name == package or name.startswith(f"{package}.")}


@pytest.mark.parametrize(
    ("importer", "banned"),
    [
        ("iidq.queue", "iidq.provenance"),
        ("iidq.queue", "iidq.web"),
        ("iidq.provenance", "iidq.queue"),
        ("iidq.provenance", "iidq.web"),
        ("iidq.provenance", "iidq.database"),
        ("iidq.queue", "iidq.webhooks"),
        ("iidq.queue", "iidq.redis"),
        ("iidq.provenance", "iidq.redis"),
        ("iidq.redis", "iidq.worker"),
        ("iidq.redis", "iidq.web"),
        ("iidq.guarded_http", "iidq.queue"),
        ("iidq.guarded_http", "iidq.web"),
        ("iidq.guarded_http", "iidq.provenance"),
        ("iidq.concurrency", "iidq.queue"),
        ("iidq.concurrency", "iidq.web"),
        ("iidq.concurrency", "iidq.provenance"),
        ("iidq.concurrency", "iidq.database"),
        ("iidq.provenance", "iidq.webhooks"),
        ("iidq.webhooks", "iidq.web"),
        ("iidq.webhooks", "iidq.worker"),
        ("iidq.web", "iidq.webhooks"),
        ("iidq.web", "iidq.worker"),
        ("iidq.web", "iidq.queue.processing"),
        ("iidq.web", "iidq.embedded"),
        ("iidq.provenance", "iidq.embedded"),
        ("iidq.cli.verification", "iidq.embedded"),
        ("iidq.embedded", "iidq.queue"),
        ("iidq.embedded", "iidq.web"),
        *(
            (foundation, package)
            for foundation in ("iidq.settings", "iidq.setting_values", "iidq.errors", "iidq.database")
            for package in ("iidq.web", "iidq.webhooks", "iidq.redis", "iidq.provenance", "iidq.worker")
        ),
    ],
)
def test_packages_keep_apart(importer: str, banned: str) -> None:
    """Queue and verification do not import each other, and the web does not import the worker."""
    offenders = {name: wrong for name in inside(importer, set(MODULES)) if (wrong := inside(banned, imported(name)))}
    assert offenders == {}


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_import_nothing_but_pure_ones(module: str) -> None:
    """A pure module imports only pure modules of iidq."""
    assert imported(module) - PURE == set()


def test_queue_modules_import_one_way() -> None:
    """Imports go from loop to execution to store, never back."""
    layers = ["iidq.queue.store", "iidq.queue.processing.execution", "iidq.queue.processing.loop"]
    for number, module in enumerate(layers):
        assert not imported(module) & set(layers[number + 1 :])


_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE|TRUNCATE|LISTEN|NOTIFY)\s+\S", re.IGNORECASE)


def sql_literals(path: Path) -> Iterator[str]:
    """Yield string literals that begin like a statement; prose (docstrings, sentences) does not count."""
    tree = ast.parse(path.read_text())
    prose = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in prose:
            text = node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
            if isinstance(text, str) and _STATEMENT.match(text) and text.strip().split()[0].isupper():
                yield text


@pytest.mark.parametrize("module", MODULES)
def test_no_sql_in_python(module: str) -> None:
    """Statements are in ``queries.sql`` and ``migrations/`` only, and not in Python."""
    assert list(sql_literals(MODULES[module])) == []


@pytest.mark.parametrize(
    "module",
    [
        "iidq.web.app",
        "iidq.worker",
        "iidq.database.migrate",
        "iidq.cli",
        *(f"iidq.cli.running.{command}" for command in ("serve", "demo", "up")),
        *(f"iidq.cli.verification.{command}" for command in ("verify_one", "check_proof")),
        "iidq.cli.operators.doctor",
    ],
)
def test_start_loads_nothing_heavy(module: str) -> None:
    """API, worker and commands start without web3, eth_account, eth_tester and py-evm.

    Only `iidq register` needs web3 at its start; demo and up load web3 while the development chain starts.
    """
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(loaded.stdout.split()) & set(HEAVY) == set()


def test_help_loads_neither_chain_nor_http() -> None:
    """``iidq --help`` answers at once: no curve, no keccak, no HTTP client, no server, no driver."""
    code = (
        "import sys\nfrom iidq.cli import main\nsys.argv = ['iidq', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stderr.split())
    assert "iidq" in loaded
    assert loaded & {*HEAVY, "coincurve", "Crypto", "httpx", "uvicorn", "starlette", "psycopg"} == set()
