"""``iidq doctor``: print the findings of all checks."""

import asyncio
import json
from collections import Counter

from rich.console import Console

from iidq.cli.api_client import NoAnswer
from iidq.cli.operators.diagnosis import diagnose
from iidq.cli.operators.findings import Finding, Level
from iidq.cli.operators.server_diagnosis import diagnose_server
from iidq.cli.terminal import complain, printable, say
from iidq.cli.verification.verdict_words import NO_VERDICT
from iidq.settings import load_settings

_WELL, _BROKEN = 0, 1
_SIGNS = {Level.OK: "✓", Level.WARNING: "!", Level.BROKEN: "✗"}
_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.BROKEN: "red"}


def doctor(*, server: str | None, api_key: str | None, as_json: bool) -> int:
    """Check ``server``, or the parts named in the environment; return 1 if anything is broken, else 0."""
    checking = diagnose(load_settings()) if server is None else diagnose_server(server, api_key)
    try:
        with Console(stderr=True).status("checking …"):
            findings = asyncio.run(checking)
    except NoAnswer as fault:
        complain(str(fault))
        return NO_VERDICT
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings]))
    else:
        for finding in findings:
            _print(finding)
        counts = Counter(finding.level for finding in findings)
        parts = [f"{counts[level]} {level}" for level in (Level.BROKEN, Level.WARNING) if counts[level]]
        say("\n" + (", ".join(parts) or "all well"))
    return _BROKEN if any(finding.level is Level.BROKEN for finding in findings) else _WELL


def _print(finding: Finding) -> None:
    sign = (_SIGNS[finding.level], _COLOURS[finding.level])
    say(sign, f" {finding.check}: {printable(finding.tried)}: {printable(finding.came_back)}")
    if finding.to_do:
        say(f"    → {printable(finding.to_do)}")
