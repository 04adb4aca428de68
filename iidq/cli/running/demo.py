"""``iidq demo``: start all parts in a temporary folder, then send four jobs over HTTP."""

import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from iidq.cli.api_client import Body, JobClient, NoAnswer
from iidq.cli.running.samples import publish_sample
from iidq.cli.terminal import job_bars, own_command
from iidq.cli.verification.verdict_words import reason, verdict_of
from iidq.embedded.stack import Stack, run_stack
from iidq.observability.logs import configure_logging
from iidq.settings import load_settings

_JOB_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """A job of the demo."""

    title: str
    """The job in words, for the table."""
    kind: str
    """``verify`` or ``proof``."""
    path: Path
    """The file to send."""
    manifest_uri: str
    """The manifest URI to send."""
    expected: str
    """The expected verdict: OK, WARN or FAIL."""


async def demo() -> int:
    """Return 0 if every verdict is as expected, else 1."""
    console = Console(highlight=False, soft_wrap=True)
    configure_logging("error", "text")
    # The demo uses its own database and chain in any environment.
    settings = load_settings(host="127.0.0.1").model_copy(update={"database_url": None, "rpc_url": None})
    async with run_stack(
        settings, workers=1, port=0, logs_to_files=True, report=lambda step: console.print(f"Starting {step} …")
    ) as stack:
        console.print("Making, signing and registering sample files …")
        cases = await _cases(stack)
        console.print(f"Running: the API at {stack.api_url}, one worker, a registry at {stack.registry}.")
        console.print("Sending four jobs over HTTP …\n")
        try:
            jobs = await _run_all(stack, cases)
        except NoAnswer as fault:
            _print_logs(console, stack)
            console.print(f"Not every job ended: {fault}.", style="red", markup=False)
            return 1
        good = all(_verdict(job) == case.expected for case, job in zip(cases, jobs, strict=True))
        good = good and bool((jobs[-1]["result"] or {}).get("tx", {}).get("txHash"))
        if not good:
            _print_logs(console, stack)
    _print_table(cases, jobs)
    if not good:
        console.print("[red]Not every verdict is right.[/]")
        return 1
    console.print("[green]Every verdict is the expected one.[/] All parts have been stopped.")
    _print_next_steps(console, _write_proof(jobs[-1]["result"]), settings.port)
    return 0


async def _cases(stack: Stack) -> list[Case]:
    genuine = await publish_sample(stack, "song.wav", seed=1)
    moved = await publish_sample(stack, "moved.wav", seed=2)
    elsewhere = stack.manifests.publish("moved.json", moved.manifest)
    tampered = stack.home / "tampered.wav"
    content = bytearray(genuine.path.read_bytes())
    content[len(content) // 2] ^= 1
    tampered.write_bytes(content)
    return [
        Case("genuine file", "verify", genuine.path, genuine.manifest_uri, "OK"),
        Case("manifest URI differs on chain", "verify", moved.path, elsewhere, "WARN"),
        Case("one bit of the file changed", "verify", tampered, genuine.manifest_uri, "FAIL"),
        Case("proof of the genuine file", "proof", genuine.path, genuine.manifest_uri, "OK"),
    ]


async def _run_all(stack: Stack, cases: list[Case]) -> list[Body]:
    # The table replaces the bars once the jobs have ended.
    with job_bars() as bars:
        return await asyncio.gather(*(_run(stack, case, bars) for case in cases))


async def _run(stack: Stack, case: Case, bars: Progress) -> Body:
    bar = bars.add_task(case.title, total=100)
    data = {"registryAddress": stack.registry, "manifestURI": case.manifest_uri}
    async with JobClient(stack.api_url, None, timeout_seconds=_JOB_TIMEOUT_SECONDS) as client:
        with case.path.open("rb") as file:
            form = {"data": data, "files": {"file": (case.path.name, file, "audio/wav")}}
            reply = await client.send(case.kind, lambda: form)
        return await client.follow(reply["jobId"], lambda job: bars.update(bar, completed=job.get("progress") or 0))


def _verdict(job: Body) -> str:
    return verdict_of(job) or str(job["status"])


def _print_table(cases: list[Case], jobs: list[Body]) -> None:
    table = Table("job", "verdict", "expected", Column("reason", overflow="fold"))
    for case, job in zip(cases, jobs, strict=True):
        verdict = _verdict(job)
        colour = "green" if verdict == case.expected else "red"
        table.add_row(
            case.title, f"[{colour}]{verdict}[/]", case.expected, reason(job) or "hash, signer and registry entry agree"
        )
    Console().print(table)


def _write_proof(proof: Body) -> str:
    """Write the proof into a lasting file and return the path."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="iidq-proof-", suffix=".json", delete=False) as file:
        json.dump(proof, file, indent=2)
    return file.name


def _print_next_steps(console: Console, proof_path: str, port: int) -> None:
    page = f"with a page at http://127.0.0.1:{port}/" if port else "with a page whose address it prints"
    console.print(
        f"The proof is in {proof_path}\n\nNext:\n"
        f"  {own_command()} check-proof {proof_path}\n      check the proof without any service\n"
        f"  {own_command()} up\n      run the same parts until Ctrl-C, {page} and commands to paste",
        markup=False,
    )


def _print_logs(console: Console, stack: Stack) -> None:
    for path in sorted(stack.home.glob("*.log")):
        console.print(f"\n[bold]{path.name}[/]")
        console.print("\n".join(path.read_text(errors="replace").splitlines()[-20:]), markup=False)
