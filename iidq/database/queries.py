"""Loads the named statements of a package's ``queries.sql``.

A file has sections. ``-- name: x`` begins a statement, ``-- fragment: x`` a part of statements. The line
``-- include x`` in a statement is replaced by the text of section x, so that a shared part is written once.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Final

DEFAULT_SCHEMA: Final = "public"
"""The schema in our SQL text, here and in ``migrations/``; the word has no other meaning there."""

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
    """Return a statement with the objects of ``schema``, a name from the settings."""
    if schema == DEFAULT_SCHEMA:
        return statement
    quoted = b'"%s"' % schema.replace('"', '""').encode()
    return _SCHEMA.sub(lambda _: quoted, statement)
