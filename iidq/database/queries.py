"""Loads ``queries.sql``: one attribute-like key per named statement.

Statements are kept as bytes, the one type besides SQL literals that psycopg takes without guessing.
"""

import re
from functools import lru_cache
from importlib.resources import files
from typing import Final

DEFAULT_SCHEMA: Final = "public"
"""The schema that our SQL names, here and in ``migrations/``. The word means nothing else in it."""

_SCHEMA = re.compile(rb"\bpublic\b")

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def parse_queries(text: str) -> dict[str, bytes]:
    """Split a file of ``-- name: …`` sections; raises ValueError for a name that stands twice."""
    parts = _NAME.split(text)[1:]
    names, bodies = parts[0::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError("a query name stands twice")
    return {name: _statement(body) for name, body in zip(names, bodies, strict=True)}


def _statement(body: str) -> bytes:
    lines = [line for line in body.strip().splitlines() if not line.startswith("--")]
    return "\n".join(lines).rstrip(";\n ").encode()


@lru_cache(maxsize=1024)
def in_schema(statement: bytes, schema: str) -> bytes:
    """Return SQL of ours with the objects of ``schema``, whose name is one that the settings take."""
    if schema == DEFAULT_SCHEMA:
        return statement
    quoted = b'"%s"' % schema.replace('"', '""').encode()
    return _SCHEMA.sub(lambda _: quoted, statement)


QUERIES = parse_queries(files("iidq.queue").joinpath("queries.sql").read_text(encoding="utf-8"))
