"""What keeps the role of ``DATABASE_URL`` from iidq's work, as Postgres' catalogs tell it: object, right and remedy.

Postgres' own errors name the object in a localised sentence and the right not at all.
"""

from typing import Any

from psycopg import AsyncConnection, sql

from iidq.first_run import Site, first_run_fault
from iidq.migration_files import shipped_migrations
from iidq.queue.queries import DEFAULT_SCHEMA, QUERIES


async def find_obstacles(connection: AsyncConnection[Any], *problems: str) -> list[str]:
    """Return one sentence per missing object, lacking right, and rule of a table that no row of iidq's can keep.

    ``problems``: these alone, of those that the query ``obstacles`` names; without any, all.
    """
    rows = await (await connection.execute(QUERIES["obstacles"])).fetchall()
    schema = getattr(connection, "schema", DEFAULT_SCHEMA)
    found = [_sentence(schema, *row) for row in rows if not problems or row[0] in problems]
    if any(problem == "missing" for problem, *_ in rows) and (fault := await find_migration_fault(connection)):
        return [fault, *found]
    return found


async def find_migration_fault(connection: AsyncConnection[Any]) -> str | None:
    """Return why `iidq migrate` cannot make what is missing, None where it can or nothing is."""
    [row] = await (await connection.execute(QUERIES["migration_site"])).fetchall()
    site, applied = Site(*row), set[str]()
    if site.shows_history:
        applied = {name for (name,) in await (await connection.execute(QUERIES["applied_migrations"])).fetchall()}
    return first_run_fault(site, getattr(connection, "schema", DEFAULT_SCHEMA), shipped_migrations(), applied)


def _sentence(schema: str, problem: str, kind: str, name: str, detail: str, role: str) -> str:
    quoted = (sql.Identifier(name) if kind == "schema" else sql.Identifier(schema, name)).as_string()
    of_role = sql.Identifier(role).as_string()
    match problem:
        case "missing" if kind == "column":
            return f"column {name} is missing: this database was made by an unreleased version; make a new one"
        case "missing":
            return f"{kind} {name} is missing: run `iidq migrate`"
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
