"""Every statement stands in ``queries.sql``: named once, explained, and used."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

import iidq
from iidq.database.queries import QUERIES, parse_queries

TEXT = files("iidq.queue").joinpath("queries.sql").read_text(encoding="utf-8")


def test_a_name_that_stands_twice_is_refused() -> None:
    """The second would silently replace the first."""
    with pytest.raises(ValueError, match="stands twice"):
        parse_queries("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n")


def test_statements_are_split_by_name() -> None:
    """Comments and the closing semicolon do not reach the server."""
    assert parse_queries("-- file\n\n-- name: one\n-- why\nSELECT 1\n  + 1;\n\n-- name: two\nSELECT 2;\n") == {
        "one": b"SELECT 1\n  + 1",
        "two": b"SELECT 2",
    }


@pytest.mark.parametrize("name", QUERIES)
def test_every_statement_is_used(name: str) -> None:
    """No statement is kept that nobody sends."""
    sources = "\n".join(path.read_text() for path in Path(iidq.__file__).parent.rglob("*.py"))
    assert f'"{name}"' in sources


@pytest.mark.parametrize("name", QUERIES)
def test_every_statement_says_its_purpose(name: str) -> None:
    """Between name and statement stands what it is for; what the name and one line say whole needs no more."""
    statement = QUERIES[name].decode()
    section = TEXT.split(f"-- name: {name}\n", 1)[1]
    assert section.startswith("-- ") or len(statement.splitlines()) == 1


@pytest.mark.parametrize("name", QUERIES)
def test_no_statement_is_two(name: str) -> None:
    """With parameters, one statement is sent at a time."""
    assert ";" not in re.sub(r"'[^']*'", "", QUERIES[name].decode())
