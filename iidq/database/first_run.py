"""Why ``iidq migrate`` cannot work in this database: one sentence with the remedy.

For the command itself, and for ``iidq doctor`` and ``/readyz`` where tables are missing.
"""

from collections.abc import Collection
from typing import NamedTuple

from psycopg import sql

# The first migration of versions before the first release.
_UNRELEASED = "0001_verification_job"
_ELSEWHERE = "set DATABASE_SCHEMA to a schema of iidq's own"


class Site(NamedTuple):
    """A row of the query ``migration_site``."""

    role: str
    has_schema: bool
    may_create_schema: bool
    may_use: bool
    may_create: bool
    has_jobs: bool
    owner: str | None
    has_history: bool
    has_known_history: bool
    may_read_history: bool

    @property
    def shows_history(self) -> bool:
        """Whether yoyo's list of applied migrations can be read."""
        return self.has_known_history and self.may_use and self.may_read_history


def first_run_fault(site: Site, schema: str, shipped: Collection[str], applied: Collection[str]) -> str | None:
    """Return what keeps the ``shipped`` migrations from being applied, None where nothing does.

    ``applied`` is yoyo's list, empty where it cannot be read.
    """
    name, role = (sql.Identifier(word).as_string() for word in (schema, site.role))
    if _UNRELEASED in applied:
        return "this database was made by an unreleased version of iidq: make a new one"
    if (site.has_history and not site.has_known_history) or (applied and not set(applied) & set(shipped)):
        return f"schema {schema} has a table _yoyo_migration of another application: {_ELSEWHERE}"
    if not set(shipped) - set(applied):
        return None
    if not site.has_schema:
        if site.may_create_schema:
            return None
        remedy = f"CREATE SCHEMA {name} AUTHORIZATION {role}"
        return f"there is no schema {schema}, and role {site.role} may not make it: {remedy}"
    if lacking := ", ".join(right for right, has in (("USAGE", site.may_use), ("CREATE", site.may_create)) if not has):
        remedy = f"GRANT {lacking} ON SCHEMA {name} TO {role}, or {_ELSEWHERE}"
        return f"role {site.role} lacks {lacking} on schema {schema}: {remedy}"
    if site.has_history and not site.may_read_history:
        return f"role {site.role} may not read table _yoyo_migration: run `iidq migrate` as its owner, {site.owner}"
    if site.has_jobs and not applied:
        return (
            f'schema {schema} has a table "VerificationJob" of another application: move the replaced system\'s away '
            f"as docs/migration.md says, or {_ELSEWHERE}"
        )
    return None
