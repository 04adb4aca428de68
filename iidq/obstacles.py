"""What keeps the role of ``DATABASE_URL`` from iidq's work, as Postgres' catalogs tell it: object, right and remedy.

Postgres' own errors name the object in a localised sentence and the right not at all.
"""

from typing import Any

from psycopg import AsyncConnection, sql

from iidq.queue.queries import QUERIES


async def find_obstacles(connection: AsyncConnection[Any]) -> list[str]:
    """Return one sentence per missing object, lacking right and table that a publication keeps from being changed."""
    rows = await (await connection.execute(QUERIES["obstacles"])).fetchall()
    return [_sentence(*row) for row in rows]


def _sentence(problem: str, kind: str, name: str, detail: str, role: str) -> str:
    quoted = sql.Identifier(name).as_string()
    match problem:
        case "missing" if kind == "column":
            return f"column {name} is missing: this database was made by an unreleased version; make a new one"
        case "missing":
            return f"{kind} {name} is missing: run `iidq migrate`"
        case "right":
            on = quoted if kind in ("table", "view") else f"{kind.upper()} {quoted}"
            grant = f"GRANT {detail} ON {on} TO {sql.Identifier(role).as_string()}"
            return f"role {role} lacks {detail} on {kind} {name}: {grant}"
        case _:
            remedy = f"ALTER TABLE {quoted} REPLICA IDENTITY FULL"
            return f"{kind} {name} has no replica identity, which publication {detail} needs: {remedy}"
