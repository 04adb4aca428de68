"""``iidq demo``: everything embedded in a temporary home, then four jobs sent as any HTTP client would send them."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from iidq.cli.samples import publish_sample
from iidq.cli.verdict import reason
from iidq.embedded.stack import Stack, run_stack
from iidq.logs import configure_logging
from iidq.settings import load_settings

_JOB_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Case:
    """One job of the demo and the verdict that it must come to."""

    title: str
    kind: str
    path: Path
    manifest_uri: str
    expected: str


async def demo() -> int:
    """Return 0 only if every verdict is the expected one."""
    console = Console()
    configure_logging("error", "text")
    # The demo shows its own parts whatever this shell is set up for.
    settings = load_settings(host="127.0.0.1").model_copy(update={"database_url": None, "rpc_url": None})
    with console.status("Starting Postgres …") as status:
        async with run_stack(
            settings, workers=1, port=0, logs_to_files=True, report=lambda step: status.update(f"Starting {step} …")
        ) as stack:
            status.update("Making, signing and registering sample files …")
            cases = await _cases(stack)
            status.stop()
            console.print(
                f"Running: Postgres, a development chain with registry {stack.registry}, manifests, "
                f"the API at {stack.api_url}, one worker process.\n",
                soft_wrap=True,
            )
            try:
                jobs = await _run_all(stack, cases, console)
            except (TimeoutError, httpx.HTTPError) as error:
                _print_logs(console, stack)
                console.print(f"[red]Not every job came to its end: {type(error).__name__}.[/]")
                return 1
            verdicts = [_verdict(job) for job in jobs]
            _print_report(console, cases, jobs)
            good = all(verdict == case.expected for verdict, case in zip(verdicts, cases, strict=True))
            good = good and bool((jobs[-1]["result"] or {}).get("tx", {}).get("txHash"))
            if not good:
                _print_logs(console, stack)
    console.print("[green]Every verdict is the expected one.[/]" if good else "[red]Not every verdict is right.[/]")
    return 0 if good else 1


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


async def _run_all(stack: Stack, cases: list[Case], console: Console) -> list[dict[str, Any]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:32}"),
        BarColumn(),
        TextColumn("{task.fields[status]:10}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        async with httpx.AsyncClient(base_url=stack.api_url, trust_env=False, timeout=30) as client:
            return await asyncio.gather(*(_run(client, stack, case, bars) for case in cases))


async def _run(client: httpx.AsyncClient, stack: Stack, case: Case, bars: Progress) -> dict[str, Any]:
    bar = bars.add_task(case.title, total=100, status="sending")
    with case.path.open("rb") as file:
        reply = await client.post(
            f"/api/verification-jobs/{case.kind}",
            files={"file": (case.path.name, file, "audio/wav")},
            data={"registryAddress": stack.registry, "manifestURI": case.manifest_uri},
        )
    reply.raise_for_status()
    poll_url = reply.json()["pollUrl"]
    async with asyncio.timeout(_JOB_TIMEOUT_SECONDS):
        while True:
            job: dict[str, Any] = (await client.get(poll_url)).raise_for_status().json()
            bars.update(bar, completed=job["progress"], status=job["status"])
            if job["status"] in ("completed", "failed", "cancelled"):
                return job
            await asyncio.sleep(_POLL_SECONDS)


def _verdict(job: dict[str, Any]) -> str:
    result = job["result"] or {}
    verdict: str = result.get("status") or result.get("verification", {}).get("status") or job["status"]
    return verdict


def _print_report(console: Console, cases: list[Case], jobs: list[dict[str, Any]]) -> None:
    table = Table("job", "verdict", "expected", Column("because", overflow="fold"))
    for case, job in zip(cases, jobs, strict=True):
        verdict = _verdict(job)
        colour = "green" if verdict == case.expected else "red"
        table.add_row(case.title, f"[{colour}]{verdict}[/]", case.expected, _reason(job))
    console.print(table)
    proof = dict(jobs[-1]["result"] or {})
    console.print("\nThe proof:")
    console.print_json(data=proof)


def _reason(job: dict[str, Any]) -> str:
    return reason(job) or "hash, signer and registry entry agree"


def _print_logs(console: Console, stack: Stack) -> None:
    for path in sorted(stack.home.glob("*.log")):
        console.print(f"\n[bold]{path.name}[/]")
        console.print("\n".join(path.read_text(errors="replace").splitlines()[-20:]), markup=False)
