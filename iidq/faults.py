"""What the parts of one process cannot do at present because of the database, each change of it logged once."""

import time
from math import inf

import psycopg

from iidq import logs
from iidq.errors import NOT_MIGRATED, DatabaseRefusal, IidqError


class Faults:
    """The last error of each part that failed and has not succeeded since."""

    def __init__(self) -> None:
        # With the end of its time, by the monotonic clock.
        self._last: dict[str, tuple[BaseException, float]] = {}

    def stands(self, part: str, error: BaseException, retry_in_seconds: float, lasts_seconds: float = inf) -> None:
        """Remember that ``part`` failed; log it unless its last error was the same.

        It is forgotten after ``lasts_seconds``, where no success of this part is ever reported.
        """
        last, until = self._last.get(part, (None, 0.0))
        now = time.monotonic()
        self._last[part] = error, now + lasts_seconds
        if last is not None and now < until and sentences(last) == sentences(error):
            return
        if _only_an_operator_helps(error):
            logs.database_refuses(part, error)
        else:
            logs.database_lost(part, error, retry_in_seconds)

    def over(self, part: str) -> None:
        """Forget the error of ``part``, which succeeded; log it where there was one."""
        if self._last and self._last.pop(part, None) is not None:
            logs.database_back(part)

    def for_operators(self) -> list[str]:
        """Return what an operator has to mend, by name where it is known; nothing of a statement or its values."""
        now = time.monotonic()
        # A copy: the thread that renews leases writes here, too.
        errors = [error for error, until in list(self._last.values()) if now < until and _only_an_operator_helps(error)]
        return list(dict.fromkeys(sentence for error in errors for sentence in sentences(error)))


def sentences(error: BaseException) -> list[str]:
    """The obstacles that were found by name, or else the general fault."""
    if isinstance(error, psycopg.Error):
        return [f"Postgres refuses a statement (SQLSTATE {error.sqlstate})"]
    return getattr(error, "__notes__", None) or [str(error)]


def _only_an_operator_helps(error: BaseException) -> bool:
    if isinstance(error, psycopg.Error):
        return error.sqlstate is not None
    return isinstance(error, DatabaseRefusal) or (isinstance(error, IidqError) and error.code == NOT_MIGRATED)
