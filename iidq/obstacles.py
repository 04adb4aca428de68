"""What keeps the role of ``DATABASE_URL`` from iidq's work, as Postgres' catalogs tell it: object, right and remedy.

Postgres' own errors name the object in a localised sentence and the right not at all.
"""

from typing import Any

from psycopg import AsyncConnection, sql

from iidq.queue.queries import QUERIES


async def find_obstacles(connection: AsyncConnection[Any], *problems: str) -> list[str]:
    """Return one sentence per missing object, lacking right, and rule of a table that no row of iidq's can keep.

    ``problems``: these alone, of those that the query ``obstacles`` names; without any, all.
    """
    rows = await (await connection.execute(QUERIES["obstacles"])).fetchall()
    return [_sentence(*row) for row in rows if not problems or row[0] in problems]


def _sentence(problem: str, kind: str, name: str, detail: str, role: str) -> str:
    quoted, of_role = sql.Identifier(name).as_string(), sql.Identifier(role).as_string()
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
