"""Obstacles: why the role of ``DATABASE_URL`` cannot do iidq's work, from Postgres' catalogs, each with its remedy.

Postgres' own errors name the object in a localised sentence and the right not at all.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql

from iidq.database.queries import DEFAULT_SCHEMA, load_queries, shipped_migrations
from iidq.database.sqlstates import NOT_MIGRATED_ERRORS, translate, wording
from iidq.errors import DatabaseRefusal, IidqError, ObjectMissing, RowRefused, TriggerFault

QUERIES = load_queries("iidq.database")

# The first migration of versions before the first release.
_UNRELEASED = "0001_verification_job"
_ELSEWHERE = "set DATABASE_SCHEMA to a schema of iidq's own"
# A row without a value, or refused by a policy, may be like all others: the catalogs show which.
_PROBLEMS_OF_ALL_ROWS = {"23502": ("default",), "42501": ("policy",)}


class Site(NamedTuple):
    """The schema and the rights of the role, a row of the query ``migration_site``."""

    role: str
    """Name of the role."""
    has_schema: bool
    """Whether the schema exists."""
    may_create_schema: bool
    """Whether the role has CREATE on the database."""
    may_use: bool
    """Whether the role has USAGE on the schema."""
    may_create: bool
    """Whether the role has CREATE on the schema."""
    has_jobs: bool
    """Whether the schema has a table ``VerificationJob``."""
    owner: str | None
    """Owner of yoyo's table of applied migrations; None without that table."""
    has_history: bool
    """Whether the schema has a table of that name."""
    has_known_history: bool
    """Whether that table has yoyo's columns; another one belongs to another application."""
    may_read_history: bool
    """Whether the role has SELECT on that table."""

    @property
    def shows_history(self) -> bool:
        """Whether the names of the applied migrations can be read."""
        return self.has_known_history and self.may_use and self.may_read_history


async def find_obstacles(connection: AsyncConnection[Any], *problems: str) -> list[str]:
    """Return one sentence per missing object, lacking right, and rule of a table that refuses every row.

    ``problems`` selects kinds of the query ``obstacles``; without any, all kinds.
    """
    rows = await (await connection.execute(QUERIES["obstacles"])).fetchall()
    schema = getattr(connection, "schema", DEFAULT_SCHEMA)
    fault, remedy = None, "run `iidq migrate`"
    if any(problem == "missing" for problem, *_ in rows):
        fault = await find_migration_fault(connection)
        if await is_migrated(connection):
            remedy = "restore it from a dump, or make a new database"
    found = [_sentence(schema, remedy, *row) for row in rows if not problems or row[0] in problems]
    return found if fault is None else [fault, *found]


async def find_migration_fault(connection: AsyncConnection[Any]) -> str | None:
    """Return why `iidq migrate` cannot make the missing objects, or None."""
    site, applied = await _look(connection)
    return first_run_fault(site, getattr(connection, "schema", DEFAULT_SCHEMA), shipped_migrations(), applied)


async def is_migrated(connection: AsyncConnection[Any]) -> bool:
    """Return whether all migrations are applied, as far as the role may see."""
    _, applied = await _look(connection)
    return applied >= set(shipped_migrations())


async def _look(connection: AsyncConnection[Any]) -> tuple[Site, set[str]]:
    [row] = await (await connection.execute(QUERIES["migration_site"])).fetchall()
    site = Site(*row)
    if not site.shows_history:
        return site, set()
    cursor = await connection.execute(QUERIES["applied_migrations"])
    return site, {name for (name,) in await cursor.fetchall()}


def _sentence(schema: str, missing: str, problem: str, kind: str, name: str, detail: str, role: str) -> str:
    """Return the obstacle with its remedy; ``missing`` is the remedy for a missing object."""
    quoted = (sql.Identifier(name) if kind == "schema" else sql.Identifier(schema, name)).as_string()
    of_role = sql.Identifier(role).as_string()
    match problem:
        case "missing" if kind == "column":
            return f"column {name} is missing: this database was made by an unreleased version; make a new one"
        case "missing":
            return f"{kind} {name} is missing: {missing}"
        case "right":
            on = quoted if kind in ("table", "view") else f"{kind.upper()} {quoted}"
            return f"role {role} lacks {detail} on {kind} {name}: GRANT {detail} ON {on} TO {of_role}"
        case "policy":
            remedy = f"CREATE POLICY iidq ON {quoted} TO {of_role} USING (true) WITH CHECK (true)"
            return f"row-level security of {kind} {name} has no policy that lets role {role} {detail}: {remedy}"
        case "hidden":
            remedy = f"CREATE POLICY iidq ON {quoted} TO {of_role} USING (true) WITH CHECK (true)"
            return f"row-level security of {kind} {name} can hide rows from role {role} (policy {detail}): {remedy}"
        case "default":
            remedy = f"ALTER TABLE {quoted} ALTER {sql.Identifier(detail).as_string()} DROP NOT NULL, or SET DEFAULT"
            return f"column {detail} of {kind} {name} takes no null and has no default: {remedy}"
        case _:
            remedy = f"ALTER TABLE {quoted} REPLICA IDENTITY FULL"
            return f"{kind} {name} has no replica identity, which publication {detail} needs: {remedy}"


def first_run_fault(site: Site, schema: str, shipped: Collection[str], applied: Collection[str]) -> str | None:
    """Return why the ``shipped`` migrations cannot be applied, in one sentence with the remedy, or None.

    ``applied`` is yoyo's list, empty where the role may not read it.
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


async def name_refusal(error: psycopg.Error, connection: AsyncConnection[Any]) -> Exception:
    """Return the translated error, or ``error``; notes name the obstacles that an operator has to remove.

    The catalogs show whether a missing object is iidq's or is named by an operator's code, and whether a rule refuses
    all rows or one.
    """
    ours = translate(error)
    problems = problems_to_look_for(error, ours)
    obstacles = [] if problems is None else await find_obstacles(connection, *problems)
    if isinstance(error, NOT_MIGRATED_ERRORS) and problems is not None and not obstacles:
        ours = DatabaseRefusal(
            f"what a constraint, trigger or policy names is missing (SQLSTATE {error.sqlstate}){wording(error)}"
        )
    elif isinstance(error, NOT_MIGRATED_ERRORS) and problems is not None and await is_migrated(connection):
        ours = ObjectMissing(f"an object of iidq's is missing (SQLSTATE {error.sqlstate})")
    elif isinstance(ours, RowRefused) and obstacles:
        ours = DatabaseRefusal(ours.message)
    for obstacle in obstacles:
        (ours or error).add_note(obstacle)
    return ours or error


def problems_to_look_for(error: psycopg.Error, ours: IidqError | None) -> tuple[str, ...] | None:
    """Return the kinds of obstacles that may explain the error; empty: any kind. None: no look is needed."""
    match ours:
        case RowRefused():
            return _PROBLEMS_OF_ALL_ROWS.get(error.sqlstate or "")
        case TriggerFault():
            return None
        case DatabaseRefusal():
            return ()
        case _:
            return () if isinstance(error, NOT_MIGRATED_ERRORS) else None
