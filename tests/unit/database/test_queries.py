"""Each statement is in a ``queries.sql``: named once, explained, and used by the package of the file."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from iidq.database.queries import load_queries, parse_queries
from tests.query_packages import QUERY_PACKAGES

STATEMENTS = [(package, name) for package in QUERY_PACKAGES for name in load_queries(package)]


def test_a_name_that_occurs_twice_is_refused() -> None:
    """A statement's name that occurs twice is refused: the second would silently replace the first."""
    with pytest.raises(ValueError, match="occurs twice"):
        parse_queries("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n")


def test_statements_are_split_by_name() -> None:
    """Comments and the closing semicolon of a statement do not reach the server."""
    assert parse_queries("-- file\n\n-- name: one\n-- why\nSELECT 1\n  + 1;\n\n-- name: two\nSELECT 2;\n") == {
        "one": b"SELECT 1\n  + 1",
        "two": b"SELECT 2",
    }


def test_a_shared_part_is_written_once() -> None:
    """A fragment is no statement; its text replaces each including line, also within another fragment."""
    text = "-- name: one\nSELECT\n-- include pair\nFROM t;\n-- fragment: pair\n-- why\n  a,\n-- include last\n"
    assert parse_queries(text + "-- fragment: last\n  b\n") == {"one": b"SELECT\n  a,\n  b\nFROM t"}


def test_an_unknown_part_is_refused() -> None:
    """A misspelt fragment is refused: the result would be a statement without the fragment."""
    with pytest.raises(KeyError, match="pear"):
        parse_queries("-- name: one\nSELECT\n-- include pear\n")


@pytest.mark.parametrize(("package", "name"), STATEMENTS)
def test_every_statement_is_used(package: str, name: str) -> None:
    """Each statement is sent by its package."""
    folder = Path(str(files(package)))
    assert any(f'"{name}"' in path.read_text() for path in folder.rglob("*.py"))


@pytest.mark.parametrize(("package", "name"), STATEMENTS)
def test_every_statement_says_its_purpose(package: str, name: str) -> None:
    """A comment follows the name of each statement; a statement of a single line may have none."""
    text = files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    section = text.split(f"-- name: {name}\n", 1)[1]
    assert section.startswith("-- ") or len(load_queries(package)[name].splitlines()) == 1


@pytest.mark.parametrize("package", QUERY_PACKAGES)
def test_every_fragment_says_its_purpose_and_is_included(package: str) -> None:
    """Each fragment is explained like a statement, and is included somewhere."""
    text = files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    for name in re.findall(r"^-- fragment: (\w+)$", text, re.MULTILINE):
        assert re.search(rf"^-- fragment: {name}\n-- ", text, re.MULTILINE)
        assert f"-- include {name}\n" in text


@pytest.mark.parametrize(("package", "name"), STATEMENTS)
def test_no_statement_is_two(package: str, name: str) -> None:
    """Each query is a single statement: with parameters, Postgres takes no more."""
    assert ";" not in re.sub(r"'[^']*'", "", load_queries(package)[name].decode())
