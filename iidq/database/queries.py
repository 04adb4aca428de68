"""The SQL that ships: the named statements of each package's ``queries.sql``, and the files of ``migrations/``.

A file has sections. ``-- name: x`` begins a statement, ``-- fragment: x`` a part of statements. The line
``-- include x`` in a statement is replaced by the text of section x, so that a shared part is written once.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

DEFAULT_SCHEMA: Final = "public"
"""The schema named in all shipped SQL. The word has no other meaning there."""

_SCHEMA = re.compile(rb"\bpublic\b")
_SECTION = re.compile(r"^-- (name|fragment): (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)


@lru_cache
def load_queries(package: str) -> Mapping[str, bytes]:
    """Return the statements in ``queries.sql`` of ``package``, by name."""
    return parse_queries(files(package).joinpath("queries.sql").read_text(encoding="utf-8"))


def parse_queries(text: str) -> dict[str, bytes]:
    """Split a file into its statements: bytes without comments, as psycopg takes them.

    Raise ValueError for a name that occurs twice, KeyError for an unknown included section.
    """
    kinds, names, bodies = (_SECTION.split(text)[first::3] for first in (1, 2, 3))
    sections = {name: _without_comments(body) for name, body in zip(names, bodies, strict=True)}
    if len(sections) != len(names):
        raise ValueError("a query name occurs twice")

    def expand(name: str) -> str:
        return _INCLUDE.sub(lambda include: expand(include[1]), sections[name])

    return {name: expand(name).encode() for kind, name in zip(kinds, names, strict=True) if kind == "name"}


def _without_comments(body: str) -> str:
    lines = [line for line in body.splitlines() if not line.startswith("--") or _INCLUDE.match(line)]
    return "\n".join(lines).strip("\n").rstrip(";\n ")


@lru_cache(maxsize=1024)
def in_schema(statement: bytes, schema: str) -> bytes:
    """Return shipped SQL rewritten for ``schema``, a valid name."""
    if schema == DEFAULT_SCHEMA:
        return statement
    quoted = b'"%s"' % schema.replace('"', '""').encode()
    return _SCHEMA.sub(lambda _: quoted, statement)


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
