"""What keeps the role of ``DATABASE_URL`` from iidq's work, as Postgres' catalogs tell it: object, right and remedy.

Postgres' own errors name the object in a localised sentence and the right not at all.
"""

from typing import Any

from psycopg import AsyncConnection, sql

from iidq.database.first_run import Site, first_run_fault
from iidq.database.migration_files import shipped_migrations
from iidq.database.queries import DEFAULT_SCHEMA, load_queries

QUERIES = load_queries("iidq.database")


async def find_obstacles(connection: AsyncConnection[Any], *problems: str) -> list[str]:
    """Return one sentence per missing object, lacking right, and rule of a table that no row of iidq's can keep.

    ``problems``: these alone, of those that the query ``obstacles`` names; without any, all.
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
    """Return why `iidq migrate` cannot make what is missing, None where it can or nothing is."""
    site, applied = await _look(connection)
    return first_run_fault(site, getattr(connection, "schema", DEFAULT_SCHEMA), shipped_migrations(), applied)


async def is_migrated(connection: AsyncConnection[Any]) -> bool:
    """Return whether all migrations were applied, as far as the role may know: then none makes what is missing."""
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
    """Return the obstacle with its remedy; ``missing`` is that of an object that is not there."""
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
