"""``iidq doctor``: is everything there that a job needs, and what to do where it is not."""

import asyncio
import json
from collections import Counter
from dataclasses import asdict

from rich.console import Console

from iidq.cli.api_client import NotFoundOut
from iidq.cli.operators.diagnosis import Finding, Outcome, diagnose
from iidq.cli.operators.server_diagnosis import diagnose_server
from iidq.cli.terminal import NOT_FOUND_OUT, complain, printable, say
from iidq.settings import load_settings

_WELL, _BROKEN = 0, 1
_SIGNS = {Outcome.OK: "✓", Outcome.WARNING: "!", Outcome.BROKEN: "✗"}
_COLOURS = {Outcome.OK: "green", Outcome.WARNING: "yellow", Outcome.BROKEN: "red"}


def doctor(*, server: str | None, api_key: str | None, as_json: bool) -> int:
    """Print what was found, of ``server`` or of what the environment names; 1 if anything is broken."""
    looking = diagnose(load_settings()) if server is None else diagnose_server(server, api_key)
    try:
        with Console(stderr=True).status("looking …"):
            findings = asyncio.run(looking)
    except NotFoundOut as fault:
        complain(str(fault))
        return NOT_FOUND_OUT
    if as_json:
        print(json.dumps([_shape(finding) for finding in findings]))
    else:
        for finding in findings:
            _show(finding)
        counts = Counter(finding.outcome for finding in findings)
        told = [f"{counts[outcome]} {outcome}" for outcome in (Outcome.BROKEN, Outcome.WARNING) if counts[outcome]]
        say("\n" + (", ".join(told) or "all well"))
    return _BROKEN if any(finding.outcome is Outcome.BROKEN for finding in findings) else _WELL


def _show(finding: Finding) -> None:
    sign = (_SIGNS[finding.outcome], _COLOURS[finding.outcome])
    say(sign, f" {finding.check}: {printable(finding.tried)}: {printable(finding.came_back)}")
    if finding.to_do:
        say(f"    → {printable(finding.to_do)}")


def _shape(finding: Finding) -> dict[str, str]:
    shape = asdict(finding)
    return {"check": shape["check"], "outcome": shape["outcome"], "tried": shape["tried"]} | {
        "cameBack": shape["came_back"],
        "toDo": shape["to_do"],
    }
