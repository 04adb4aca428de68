"""SQLSTATEs and other errors of Postgres, translated into errors of iidq. Pure.

Callers never see Postgres' own wording, which may quote values of a row.
"""

import re

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout, TooManyRequests

from iidq.errors import (
    NOT_MIGRATED,
    DatabaseRefusal,
    DatabaseUnavailable,
    IidqError,
    InvalidInput,
    RowRefused,
    TriggerFault,
)

_CONNECTION_LOST = (psycopg.OperationalError, psycopg.InterfaceError)
# Classes of errors of the server, the role, the schema or the statement. Any other may come from one row: its values,
# its constraints, or a trigger that an operator added.
_CONCERN_ALL_ROWS = frozenset(
    ["08", "0A", "25", "26", "28", "3D", "3F", "40", "42", "53", "55", "57", "58", "F0", "XX"],
)
# The passing errors of these classes, also inside a trigger.
_PASSING = ("40", "53", "57014", "55P03", "25006")
NOT_MIGRATED_ERRORS = (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction)
# SQLSTATE, or its first two characters (PostgreSQL manual, appendix A). The connection: lost, or ended by the server.
_LOST = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
_EXHAUSTED = "53"
_CONFLICT = "40"
# Errors for an operator; obstacles.py finds the object and the right.
_REFUSALS = {
    "0A": "Postgres does not support the statement",
    "28": "Postgres refuses the login of DATABASE_URL",
    "3D": "there is no such database as DATABASE_URL names",
    "3F": "there is no such schema",
    "42501": "the role of DATABASE_URL lacks a right",
    "55": "an object of the database is not in a state for this statement",
    "57P04": "the database was dropped",
    "58": "the server's machine reports an error",
    "XX": "Postgres reports damaged data or a fault of its own",
}
# libpq keeps no SQLSTATE of a connection that was refused. A server with other lc_messages is taken for an outage.
_REFUSED_LOGINS = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no such user": "28000",
    "no pg_hba.conf entry": "28000",
    "pg_hba.conf rejects connection": "28000",
    "is not permitted to log in": "28000",
    "session is read-only": "25006",
    "permission denied for database": "42501",
    "no such database": "3D000",
    "is not currently accepting connections": "55000",
    'role "': "28000",
    'database "': "3D000",
}
# Classes in which Postgres' message names objects and no values of a row.
_NAMES_OBJECTS = ("0A", "3F", "42", "55")
_QUOTES_CODE = "42601"
_WORDING_CHARACTERS = 200
# Rows that go against another row: unique, exclusion, foreign key, ON DELETE RESTRICT.
_ROW_CONFLICTS = ("23505", "23P01", "23503", "23001")
# One frame of an error's context, in any language: PL/pgSQL gives its functions parentheses, others quotes.
_QUOTES = '"«»„“”「」'
_FUNCTION = re.compile(
    rf"^(?:[^\n({_QUOTES}]*PL/[^\n({_QUOTES}]*?([a-z_][\w.$]*)\(|"
    rf"[^\n({_QUOTES}]+[{_QUOTES}][ ]?([a-z_][\w$]*)[ ]?[{_QUOTES}][^\n{_QUOTES}]*$)",
    re.MULTILINE | re.ASCII | re.IGNORECASE,
)
_OURS = re.compile(r"(.*[.])?(iidq_\w+|cancel_job|retry_job|pause_queue|resume_queue)")
# The server's function that checks a new row against policies: its error has the SQLSTATE of a lacking right.
_CHECKS_POLICIES = "ExecWithCheckOptions"
# Raised by iidq_enqueue for rows that a trigger dropped silently.
_DROPPED = "27000"


def translate(error: psycopg.Error) -> IidqError | None:
    """Return iidq's error for one of Postgres; None for psycopg's own refusals of values and misuse.

    ``obstacles.name_refusal`` adds the names of missing objects and rights.
    """
    if isinstance(error, PoolTimeout | TooManyRequests):
        return DatabaseUnavailable("no connection to the database in time")
    function = _operators_function(error)
    if function is not None and _is_fault_of_code(error):
        return TriggerFault(f"function {function} in the database fails (SQLSTATE {error.sqlstate}){wording(error)}")
    if isinstance(error, NOT_MIGRATED_ERRORS):
        return DatabaseUnavailable(
            f"an object is missing (SQLSTATE {error.sqlstate}): run `iidq migrate`", code=NOT_MIGRATED
        )
    if isinstance(error, errors.QueryCanceled):
        return DatabaseUnavailable("the database took too long", code="database.timeout")
    if isinstance(error, errors.LockNotAvailable):
        return DatabaseUnavailable("another transaction keeps the row locked", code="database.locked")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return DatabaseUnavailable("the database is read-only for now", code="database.read_only")
    if not error.sqlstate and not isinstance(error, _CONNECTION_LOST):
        return None
    state = error.sqlstate or _refused_login(error)
    if not state or state.startswith(_LOST):
        return unreachable()
    if state == "25006":
        return DatabaseUnavailable(
            "no server of DATABASE_URL takes writes: it is a standby, or default_transaction_read_only is on",
            code="database.read_only",
        )
    if state.startswith(_EXHAUSTED):
        return DatabaseUnavailable("the database is out of disk, memory or connections", code="database.exhausted")
    if state.startswith(_CONFLICT):
        return DatabaseUnavailable("other transactions came between", code="database.conflict")
    if state[:2] not in _CONCERN_ALL_ROWS or error.diag.source_function == _CHECKS_POLICIES:
        return RowRefused(f"{_rule(error, function)} (SQLSTATE {state})", conflict=state in _ROW_CONFLICTS)
    reason = _REFUSALS.get(state) or _REFUSALS.get(state[:2]) or "Postgres refuses a statement"
    table = error.diag.table_name
    return DatabaseRefusal(f"{reason} (SQLSTATE {state}{f', table {table}' if table else ''}){wording(error)}")


def is_passing(error: BaseException) -> bool:
    """Return whether the same statement may succeed in a moment: connection lost, deadlock, shutdown, disk full."""
    if isinstance(error, psycopg.Error):
        error = translate(error) or error
    return isinstance(error, DatabaseUnavailable) and error.code != NOT_MIGRATED


def concerns_one_row(error: BaseException) -> bool:
    """Return whether a statement over many rows may succeed once a certain row is left out."""
    if isinstance(error, psycopg.Error):
        # psycopg refuses values, Postgres refuses rows.
        ours = translate(error)
        return isinstance(error, psycopg.DataError) if ours is None else concerns_one_row(ours)
    # Python raises the last three for values that it cannot hold.
    return isinstance(error, RowRefused | TriggerFault | InvalidInput | ValueError | OverflowError | RecursionError)


def may_be_of_one_row(error: BaseException) -> bool:
    """Return whether to try the rows apart: one row, or an operator's code for one row, may be at fault."""
    return concerns_one_row(error) or fault_of_code(error) is not None


def fault_of_code(error: BaseException) -> TriggerFault | None:
    """Return the fault of an operator's function that raised a passing error, or None.

    Such a function may raise the error each time, and for one row alone.
    """
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    if not is_passing(error) or not isinstance(cause, psycopg.Error) or (cause.sqlstate or "").startswith(_EXHAUSTED):
        return None
    function = _operators_function(cause)
    if function is None or _is_of_server(cause):
        return None
    return TriggerFault(f"function {function} in the database fails (SQLSTATE {cause.sqlstate})")


def _operators_function(error: psycopg.Error) -> str | None:
    """Return the innermost function of the error's context, unless the function is iidq's."""
    found = _FUNCTION.search(error.diag.context or "")
    name = found and (found[1] or found[2])
    return None if name is None or _OURS.fullmatch(name) else name


def _is_of_server(error: psycopg.Error) -> bool:
    # A server that ends the connection ends it with FATAL, also in the middle of a function.
    return error.diag.severity_nonlocalized in ("FATAL", "PANIC")


def _is_fault_of_code(error: psycopg.Error) -> bool:
    state = error.sqlstate or ""
    return state[:2] in _CONCERN_ALL_ROWS and not state.startswith(_PASSING) and not _is_of_server(error)


def _refused_login(error: psycopg.Error) -> str:
    text = str(error)
    return next((state for words, state in _REFUSED_LOGINS.items() if _says(text, words)), "")


def _says(text: str, words: str) -> bool:
    # Names between quotes are chosen by operators; the end of the sentence decides.
    return words in text and (not words.endswith('"') or "does not exist" in text)


def _rule(error: psycopg.Error, function: str | None) -> str:
    """Return the name of the rule that refuses the row, bounded because a raising function can invent names.

    Clients read the name in a job's error, so the table is left out.
    """
    known = error.diag
    if known.constraint_name:
        return f"constraint {known.constraint_name}"[:_WORDING_CHARACTERS]
    if known.column_name:
        return f"column {known.column_name}"[:_WORDING_CHARACTERS]
    if function is not None:
        return f"function {function}"
    if error.sqlstate == _DROPPED:
        return "a trigger that drops the row"
    return "a row-level security policy" if known.source_function == _CHECKS_POLICIES else "a rule of the database"


def wording(error: psycopg.Error) -> str:
    state, message = error.sqlstate or "", error.diag.message_primary
    if not message or not state.startswith(_NAMES_OBJECTS) or state == _QUOTES_CODE:
        return ""
    return f": {message[:_WORDING_CHARACTERS]}"


def unreachable() -> DatabaseUnavailable:
    return DatabaseUnavailable("the database cannot be reached")
