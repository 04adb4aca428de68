"""The SQL that ships: named statements of ``queries.sql`` as bytes, and the files of ``migrations/``."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

DEFAULT_SCHEMA: Final = "public"
"""The schema named in all shipped SQL. The word has no other meaning there."""

_SCHEMA = re.compile(rb"\bpublic\b")

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def parse_queries(text: str) -> dict[str, bytes]:
    """Split a file of ``-- name: …`` sections; raise ValueError for a repeated name."""
    parts = _NAME.split(text)[1:]
    names, bodies = parts[0::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError("a query name is repeated")
    return {name: _statement(body) for name, body in zip(names, bodies, strict=True)}


def _statement(body: str) -> bytes:
    lines = [line for line in body.strip().splitlines() if not line.startswith("--")]
    return "\n".join(lines).rstrip(";\n ").encode()


@lru_cache(maxsize=1024)
def in_schema(statement: bytes, schema: str) -> bytes:
    """Return shipped SQL rewritten for ``schema``, a valid name."""
    if schema == DEFAULT_SCHEMA:
        return statement
    quoted = b'"%s"' % schema.replace('"', '""').encode()
    return _SCHEMA.sub(lambda _: quoted, statement)


QUERIES = parse_queries(files("iidq.queue").joinpath("queries.sql").read_text(encoding="utf-8"))


@contextlib.contextmanager
def migrations_folder(schema: str = DEFAULT_SCHEMA) -> Iterator[Path]:
    """Provide the folder ``migrations/`` of the wheel or the checkout, rewritten for another schema."""
    with as_file(files("iidq")) as package, contextlib.ExitStack() as temporary:
        inside = package / "migrations"
        folder = inside if inside.is_dir() else package.parent / "migrations"
        if schema != DEFAULT_SCHEMA:
            rewritten = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="iidq-")))
            for path in folder.glob("*.sql"):
                (rewritten / path.name).write_bytes(in_schema(path.read_bytes(), schema))
            folder = rewritten
        yield folder


def shipped_migrations() -> list[str]:
    """Return the names of this version's migrations in order."""
    with migrations_folder() as folder:
        return sorted(path.stem for path in folder.glob("*.sql") if not path.stem.endswith(".rollback"))
