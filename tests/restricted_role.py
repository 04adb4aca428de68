"""A role of the test's own, with all that iidq needs, from which rights are taken."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.sql import SQL, Identifier


class RestrictedRole:
    """Its name, a URL with its login, and its rights, which the owner of the tables changes."""

    def __init__(self, database_url: str, owner: psycopg.Connection[Any], schema: str) -> None:
        self._owner = owner
        self._schema = schema
        self.name = f"app_{secrets.token_hex(6)}"
        parts = urlsplit(database_url)
        self.url = urlunsplit(parts._replace(netloc=f"{self.name}@{parts.netloc.rpartition('@')[2]}"))

    def grant(self, privilege: str, table: str) -> None:
        """Let the role do it."""
        self._change("GRANT {} ON {} TO {}", privilege, table)

    def revoke(self, privilege: str, table: str) -> None:
        """Let the role do it no more."""
        self._change("REVOKE {} ON {} FROM {}", privilege, table)

    def _change(self, statement: Any, privilege: Any, table: str) -> None:
        self._owner.execute(
            SQL(statement).format(SQL(privilege), Identifier(self._schema, table), Identifier(self.name))
        )


@contextmanager
def restricted_role(database_url: str, schema: str = "public") -> Iterator[RestrictedRole]:
    """A role that may do everything with the tables and views of this schema, until the block ends."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        role = RestrictedRole(database_url, owner, schema)
        name = Identifier(role.name)
        owner.execute(SQL("CREATE ROLE {} LOGIN").format(name))
        owner.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(schema), name))
        owner.execute(SQL("GRANT ALL ON ALL TABLES IN SCHEMA {} TO {}").format(Identifier(schema), name))
        try:
            yield role
        finally:
            owner.execute(SQL("DROP OWNED BY {}").format(name))
            owner.execute(SQL("DROP ROLE {}").format(name))
