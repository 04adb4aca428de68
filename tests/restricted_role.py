"""A role for a single test with all rights for iidq; the test then revokes rights."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.sql import SQL, Identifier


class RestrictedRole:
    """A role: name, URL with login, and rights, changed by the owner of the tables."""

    def __init__(self, database_url: str, owner: psycopg.Connection[Any], schema: str) -> None:
        self._owner = owner
        self._schema = schema
        self.name = f"app_{secrets.token_hex(6)}"
        parts = urlsplit(database_url)
        self.url = urlunsplit(parts._replace(netloc=f"{self.name}@{parts.netloc.rpartition('@')[2]}"))

    def grant(self, privilege: str, table: str) -> None:
        """Grant the privilege to the role."""
        self._change("GRANT {} ON {} TO {}", privilege, table)

    def revoke(self, privilege: str, table: str) -> None:
        """Revoke the privilege from the role."""
        self._change("REVOKE {} ON {} FROM {}", privilege, table)

    def _change(self, statement: Any, privilege: Any, table: str) -> None:
        self._owner.execute(
            SQL(statement).format(SQL(privilege), Identifier(self._schema, table), Identifier(self.name))
        )


@contextmanager
def restricted_role(database_url: str, schema: str = "public") -> Iterator[RestrictedRole]:
    """Yield a role with all rights on the tables and views of the schema, until the block ends."""
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
