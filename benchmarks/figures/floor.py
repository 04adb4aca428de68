"""What this Postgres can do at all: pgbench with the least SQL, and with iidq's own statements."""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import psycopg

from benchmarks.bench import Bench
from benchmarks.figures.drain import filled
from benchmarks.server import STATEMENTS, execute, pgbench
from iidq.queue.queries import QUERIES

_BATCH = 100
_PSYCOPG_PARAMETER = re.compile(r"%\((\w+)\)[sb]")
_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_WORKER = "pgbench"
# What a drain's handler returns. After each colon a space: pgbench takes a colon and a letter for a variable.
_RESULT = json.dumps(
    {
        "status": "OK",
        "fileHash": "0x" + "c0" * 32,
        "recovered": "0x" + "5a" * 20,
        "onchain": {
            "creator": "0x" + "5a" * 20,
            "contentHash": "0x" + "c0" * 32,
            "manifestURI": "ipfs://bafkrei" + "c0" * 26,
            "timestamp": 1_700_000_000,
        },
        "checks": {"manifestHashOk": True, "creatorOk": True, "manifestOk": True},
    }
)


class PgbenchFailed(Exception):
    """pgbench did not end well; the message is its own."""


def insert16(bench: Bench) -> dict[str, float]:
    """One row per transaction, 16 clients."""
    with bench.server.empty_database() as url, _script("insert.sql") as script:
        _make_table(url, 0)
        rate = _pgbench(url, script, "-c", "16", "-j", "2", "-T", f"{max(1, round(bench.options.floor_seconds))}")
    return {"floor_insert16": rate}


def batch(bench: Bench) -> dict[str, float]:
    """Claim 100, complete 100, one client, until all rows are done."""
    rows = bench.options.floor_rows
    with bench.server.empty_database() as url, _script("claim_and_complete.sql") as script:
        _make_table(url, rows)
        rate = _pgbench(url, script, "-c", "1", "-t", f"{max(1, rows // _BATCH)}")
    return {"floor_batch": rate * _BATCH}


def same_statements(bench: Bench) -> dict[str, float]:
    """iidq's claim and its outcome statement over the rows of a drain, one after the other, one client.

    The batch is the drain's; between the two stands a look-up of what was claimed, for pgbench keeps no arrays.
    """
    jobs = bench.options.jobs
    size = min(bench.options.concurrency, jobs)
    with filled(bench, jobs) as url:
        script = bench.server.scratch / "same_statements.sql"
        script.write_text(_own_statements(size))
        rate = _pgbench(url, script, "-c", "1", "-t", f"{max(1, jobs // size)}")
    return {"floor_same": rate * size}


def _make_table(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(files("benchmarks").joinpath("pgbench/table.sql").read_bytes())
        connection.execute(STATEMENTS["fill_floor"], {"rows": rows})
    execute(url, STATEMENTS["vacuum_floor"])
    execute(url, STATEMENTS["checkpoint"])


@contextlib.contextmanager
def _script(name: str) -> Iterator[Path]:
    from importlib.resources import as_file

    with as_file(files("benchmarks").joinpath("pgbench", name)) as path:
        yield path


def _pgbench(url: str, script: Path, *arguments: str) -> float:
    """Transactions per second, connecting not counted."""
    done = subprocess.run(
        [pgbench(), "-n", "-M", "prepared", "-f", script, *arguments, url],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    found = _RATE.search(done.stdout)
    if done.returncode or not found:
        raise PgbenchFailed(done.stderr.strip()[-2000:])
    return float(found[1])


def _own_statements(size: int) -> str:
    """A pgbench script: claim, look up what is held, complete it."""
    values = {
        "worker_id": f"'{_WORKER}'",
        "slots": str(size),
        "lease_seconds": "30",
        "ids": ":ids",
        "attempts": ":attempts",
        "statuses": "array_fill('completed'::text, ARRAY[:held::int])",
        "results": f"array_fill('{_RESULT}'::text, ARRAY[:held::int])",
        "failures": "array_fill(NULL::text, ARRAY[:held::int])",
        "delays_seconds": "array_fill(NULL::float8, ARRAY[:held::int])",
    }
    statements = [
        _PSYCOPG_PARAMETER.sub(lambda match: values[match[1]], QUERIES[name].decode())
        for name in ("claim", "store_outcomes")
    ]
    claim, store = (re.sub(r"--[^\n]*", "", text) for text in statements)
    held = STATEMENTS["held_by"].decode().replace("%(worker_id)s", f"'{_WORKER}'")
    return f"{claim};\n{held} \\gset\n{store};\n"
