"""``iidq verify``: is this file what its creator registered? Asks a running service, as any HTTP client would."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from iidq.cli.client import Body, JobClient, NotFoundOut
from iidq.cli.terminal import printable
from iidq.provenance.digest import ContentDigest

_NOT_FOUND_OUT: Final = 2
_INTERRUPTED: Final = 130
_EXIT_CODES: Final = {"OK": 0, "FAIL": 1, "WARN": 3}
_COLOURS: Final = {"OK": "green", "FAIL": "red", "WARN": "yellow"}
_HEADLINES: Final = {
    "OK": "this is what its creator registered.",
    "WARN": "this is its creator's content, but not everything agrees.",
    "FAIL": "nothing shows that this is what its creator registered.",
}
_SIGNS: Final = {"passed": "✓", "failed": "✗", "notChecked": "·"}
_STEPS: Final = {
    10: "fetching the manifest",
    30: "recovering the signer",
    50: "reading the registry",
    70: "comparing",
    90: "storing the result",
}
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about which file; ``upload`` sends the file itself instead of its hash."""

    path: Path
    manifest_uri: str
    registry: str
    chain_id: int | None
    proof: bool
    upload: bool

    def fields(self) -> dict[str, str]:
        """The form's fields that are not the file."""
        fields = {"manifestURI": self.manifest_uri, "registryAddress": self.registry}
        return fields if self.chain_id is None else fields | {"chainId": str(self.chain_id)}


def verify(
    question: Question, *, server: str, api_key: str | None, timeout_seconds: float, output: Path | None, as_json: bool
) -> int:
    """Ask, follow, print the verdict; return 0 for OK, 1 for FAIL, 3 for WARN, 2 where it could not be found out."""
    job_url = None
    try:
        with JobClient(server, api_key, timeout_seconds=timeout_seconds) as client, _bars() as bars:
            body = _send(client, question, bars)
            # Without its queue a service answers at once.
            if body.get("mode") != "sync":
                job_id = str(body.get("jobId"))
                job_url = client.job_url(job_id)
                body = _follow(client, job_id, bars)
        result = body.get("result")
        if output is not None and result is not None:
            output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except NotFoundOut as fault:
        _complain(str(fault))
        return _NOT_FOUND_OUT
    except OSError as error:
        _complain(f"{error.filename or question.path}: {error.strerror or error}")
        return _NOT_FOUND_OUT
    except KeyboardInterrupt:
        _complain(f"stopped; the job goes on: {job_url}" if job_url else "stopped")
        return _INTERRUPTED
    if as_json:
        print(json.dumps(body))
    verdict = _verdict(result)
    if verdict not in _EXIT_CODES:
        _complain(f"it could not be found out: {body.get('error') or body.get('status') or 'there is no verdict'}")
        return _NOT_FOUND_OUT
    if not as_json and isinstance(result, dict):
        _print_verdict(question, result, verdict)
        if question.proof:
            typer.echo(
                f"\nThe proof is in {output}." if output else "\n--output FILE or --json gives the proof itself."
            )
    return _EXIT_CODES[verdict]


def _bars() -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:24}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _send(client: JobClient, question: Question, bars: Progress) -> Body:
    kind = "proof" if question.proof else "verify"
    if not question.upload:
        fields = question.fields() | {"contentHash": _hash(question.path, bars)} | _file_name(question.path)
        return client.send(kind, lambda: {"json": fields})
    bar = bars.add_task("sending", total=None)
    with bars.open(question.path, "rb", task_id=bar) as file:
        # httpx begins at the start of the file each time.
        return client.send(kind, lambda: {"data": question.fields(), "files": {"file": (question.path.name, file)}})


def _hash(path: Path, bars: Progress) -> str:
    digest = ContentDigest()
    bar = bars.add_task("hashing", total=None)
    with bars.open(path, "rb", task_id=bar) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.content_hash()


def _file_name(path: Path) -> dict[str, str]:
    """Only a label here; left out where services would refuse it as they refuse an upload's."""
    name = path.name
    return {"fileName": name} if name.isprintable() and ".." not in name and "\\" not in name else {}


def _follow(client: JobClient, job_id: str, bars: Progress) -> Body:
    bar = bars.add_task("waiting in line", total=100)

    def report(job: Body) -> None:
        progress = job.get("progress")
        if isinstance(progress, int):
            step = next((text for at, text in reversed(_STEPS.items()) if progress >= at), "waiting in line")
            bars.update(bar, completed=progress, description=step)

    return client.follow(job_id, report)


def _verdict(result: Any) -> str:
    if not isinstance(result, dict):
        return ""
    verification = result.get("verification")
    verdict = verification.get("status") if isinstance(verification, dict) else result.get("status")
    return str(verdict)


def _print_verdict(question: Question, result: Body, verdict: str) -> None:
    typer.echo(f"{typer.style(verdict, fg=_COLOURS[verdict], bold=True)}: {_HEADLINES[verdict]}")
    lines = [f"  {name:9} {value}" for name, value in _facts(question, result).items()]
    lines += ["", *(f"  {sign} {text}" for sign, text in _checks(result))]
    typer.echo("\n".join(map(printable, lines)))


def _facts(question: Question, result: Body) -> dict[str, str]:
    facts = {"file": question.path.name, "manifest": question.manifest_uri, "registry": question.registry}
    onchain = result.get("onchain")
    if isinstance(onchain, dict) and isinstance(onchain.get("timestamp"), int) and onchain["timestamp"] > 0:
        moment = datetime.fromtimestamp(onchain["timestamp"], UTC)
        facts |= {"creator": str(onchain.get("creator")), "since": moment.isoformat(sep=" ", timespec="seconds")}
    return facts


def _checks(result: Body) -> list[tuple[str, str]]:
    report = result.get("report")
    checks = report.get("checks") if isinstance(report, dict) else None
    if isinstance(checks, list):
        return [
            (_SIGNS.get(str(check.get("outcome")), "·"), f"{check.get('code')}: {check.get('message')}")
            for check in checks
            if isinstance(check, dict)
        ]
    # A service without reports has at least these.
    flags = result.get("verification") or result.get("checks") or {}
    return [("✓" if value else "✗", name) for name, value in flags.items() if isinstance(value, bool)]


def _complain(text: str) -> None:
    typer.echo(f"iidq: {printable(text)}", err=True)
