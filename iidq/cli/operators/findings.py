"""A check of ``iidq doctor`` and the finding: each check tries the real thing and names a remedy."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import psycopg

from iidq.cli.api_client import Body, NoAnswer
from iidq.cli.operators.queue_access import NotAllowed
from iidq.errors import IidqError
from iidq.observability.redaction import redact_url

CHECK_SECONDS: Final = 10.0
_LONG_WAIT_SECONDS: Final = 300.0


class Level(StrEnum):
    """How bad a finding is; only ``BROKEN`` keeps jobs from being done."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


class CheckResult(NamedTuple):
    """The result of an attempt."""

    level: Level
    """How bad it is."""
    came_back: str
    """The reply or error of the attempt."""
    to_do: str = ""
    """The remedy; empty if none is needed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A check with the result."""

    check: str
    """Name of the check."""
    level: Level
    """How bad the result is."""
    tried: str
    """The attempt in words."""
    came_back: str
    """The reply or error of the attempt."""
    to_do: str
    """The remedy; empty if none is needed."""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as printed by `iidq doctor --json`."""
        shape = asdict(self)
        return {"check": shape["check"], "outcome": shape["level"], "tried": shape["tried"]} | {
            "cameBack": shape["came_back"],
            "toDo": shape["to_do"],
        }


async def run_check(check: str, tried: str, attempt: Callable[[], Awaitable[CheckResult]], to_do: str) -> Finding:
    """Run ``attempt`` for up to ``CHECK_SECONDS``; a foreseeable failure is a finding with the remedy ``to_do``."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            result = await attempt()
    except TimeoutError:
        result = CheckResult(Level.BROKEN, f"no answer within {CHECK_SECONDS:.0f} s", to_do)
    except (NoAnswer, NotAllowed, IidqError, psycopg.Error, OSError) as error:
        result = CheckResult(Level.BROKEN, error_text(error), to_do)
    return Finding(check, result.level, tried, redact_url(result.came_back), result.to_do)


def error_text(error: BaseException) -> str:
    """Return an error in a single line, in the driver's own words where there are any: only operators see the line."""
    cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
    text = cause.message if isinstance(cause, IidqError) else str(cause)
    return " ".join(text.split()) or type(cause).__name__


def queue_result(counts: Body) -> CheckResult:
    """Return whether the queue with the ``/stats`` of ``counts`` moves."""
    age = counts.get("oldestWaitingSeconds")
    states = ", ".join(f"{counts.get(name)} {name}" for name in ("waiting", "active", "failed"))
    shown = f"{counts.get('state')}; {states}"
    if counts.get("state") == "paused":
        reason = f": {counts['pauseReason']}" if counts.get("pauseReason") else ""
        return CheckResult(Level.WARNING, f"{shown}{reason}", "`iidq resume` when the reason is gone")
    if isinstance(age, int | float) and age > _LONG_WAIT_SECONDS:
        return CheckResult(
            Level.WARNING, f"{shown}; the first in line has waited {age:.0f} s", "start more workers: `iidq worker`"
        )
    return CheckResult(Level.OK, shown)
