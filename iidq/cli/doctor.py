"""``iidq doctor``: is everything there that a job needs, and what to do where it is not."""

import asyncio
import json
from collections import Counter
from dataclasses import asdict

import typer
from rich.console import Console

from iidq.cli.diagnosis import Finding, Outcome, diagnose
from iidq.cli.terminal import printable
from iidq.settings import load_settings

_WELL, _BROKEN = 0, 1
_SIGNS = {Outcome.OK: "✓", Outcome.WARNING: "!", Outcome.BROKEN: "✗"}
_COLOURS = {Outcome.OK: "green", Outcome.WARNING: "yellow", Outcome.BROKEN: "red"}


def doctor(*, as_json: bool) -> int:
    """Print what was found; 1 if anything is broken."""
    settings = load_settings()
    with Console(stderr=True).status("looking …"):
        findings = asyncio.run(diagnose(settings))
    if as_json:
        print(json.dumps([_shape(finding) for finding in findings]))
    else:
        for finding in findings:
            _show(finding)
        counts = Counter(finding.outcome for finding in findings)
        told = [f"{counts[outcome]} {outcome}" for outcome in (Outcome.BROKEN, Outcome.WARNING) if counts[outcome]]
        typer.echo("\n" + (", ".join(told) or "all well"))
    return _BROKEN if any(finding.outcome is Outcome.BROKEN for finding in findings) else _WELL


def _show(finding: Finding) -> None:
    sign = typer.style(_SIGNS[finding.outcome], fg=_COLOURS[finding.outcome])
    typer.echo(f"{sign} {finding.check}: {printable(finding.tried)}: {printable(finding.came_back)}")
    if finding.to_do:
        typer.echo(f"    → {finding.to_do}")


def _shape(finding: Finding) -> dict[str, str]:
    shape = asdict(finding)
    return {"check": shape["check"], "outcome": shape["outcome"], "tried": shape["tried"]} | {
        "cameBack": shape["came_back"],
        "toDo": shape["to_do"],
    }
