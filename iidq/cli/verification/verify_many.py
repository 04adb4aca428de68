"""``iidq verify`` for many files: hashed here, sent as batches, told in one table."""

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from iidq.cli.api_client import Body, JobClient, NotFoundOut, Refused
from iidq.cli.terminal import INTERRUPTED, byte_bars, complain, count_bars, printable, say
from iidq.cli.verification.file_hash import hash_file, label_of
from iidq.cli.verification.input_files import Candidate, UnusableArguments
from iidq.cli.verification.verdict_words import COLOURS, EXIT_CODES, exit_code, reason, verdict_of, worst
from iidq.cli.verification.verify_options import Question, Service, upload
from iidq.queue.job import MAX_BATCH_JOBS

_UNKNOWN: Final = "?"
_IN_BATCH: Final = re.compile(r"jobs\[(\d{1,4})\]\.?(.*)")


@dataclass(slots=True)
class _Row:
    """One file's line of the table, filled in as its job comes along."""

    candidate: Candidate
    content_hash: str = ""
    manifest_uri: str = ""
    asked: bool = False
    """The service has been sent the question, and may have a job of it."""
    job_id: str | None = None
    job: Body | None = None
    fault: str | None = None
    """Why there is no job, or no end of it."""

    @property
    def verdict(self) -> str | None:
        return None if self.job is None else verdict_of(self.job)

    @property
    def reason(self) -> str:
        if self.fault is not None:
            return self.fault
        return "" if self.job is None else reason(self.job)

    def as_json(self) -> dict[str, Any]:
        """What scripts get of it."""
        return {
            "file": self.candidate.shown,
            "verdict": self.verdict,
            "error": self.reason if self.verdict is None else None,
            "job": self.job,
        }


def verify_many(
    candidates: Sequence[Candidate], question: Question, service: Service, *, output: Path | None, as_json: bool
) -> int:
    """Ask about all of them, print a table (a JSON array with ``as_json``); return the exit code of the worst."""
    rows = [_Row(candidate) for candidate in candidates]
    try:
        _hash_all(rows, question)
        asyncio.run(_ask_all(rows, question, service))
    except KeyboardInterrupt:
        going_on = sum(row.asked and row.job is None and row.fault is None for row in rows)
        server = service.server.rstrip("/")
        complain(
            f"stopped; {going_on} jobs go on: see `iidq jobs list --server {server}`"
            if going_on
            else "stopped; no job is left behind"
        )
        return INTERRUPTED
    if output is not None:
        _write_results(rows, output)
    if as_json:
        print(json.dumps([row.as_json() for row in rows]))
    else:
        _print_table(rows)
    return worst(exit_code(row.verdict) for row in rows)


def _hash_all(rows: Sequence[_Row], question: Question) -> None:
    with byte_bars() as bars:
        for row in rows:
            try:
                row.content_hash = hash_file(row.candidate.path, bars)
                row.manifest_uri = question.manifests.uri_for(row.candidate, row.content_hash)
            except UnusableArguments as fault:
                row.fault = str(fault)
            except OSError as error:
                row.fault = f"it cannot be read ({error.strerror or error})"


async def _ask_all(rows: Sequence[_Row], question: Question, service: Service) -> None:
    async with service.client() as client:
        asked = [row for row in rows if row.fault is None]
        if question.upload:
            await _upload_each(client, asked, question)
        else:
            for start in range(0, len(asked), MAX_BATCH_JOBS):
                await _send_batch(client, asked[start : start + MAX_BATCH_JOBS], question)
        with count_bars() as bars:
            await _follow_all(client, [row for row in asked if row.job_id is not None], bars)


async def _send_batch(client: JobClient, rows: Sequence[_Row], question: Question) -> None:
    jobs = [
        question.fields(row.manifest_uri)
        | {"type": question.kind, "contentHash": row.content_hash}
        | label_of(row.candidate.path)
        for row in rows
    ]
    client.restart_clock()
    for row in rows:
        row.asked = True
    try:
        job_ids = await client.send_batch(jobs)
    except Refused as refusal:
        _blame(rows, refusal)
    except NotFoundOut as fault:
        for row in rows:
            row.fault = str(fault)
    else:
        for row, job_id in zip(rows, job_ids, strict=True):
            row.job_id = job_id


def _blame(rows: Sequence[_Row], refusal: Refused) -> None:
    """All or none: one wrong field keeps the whole batch back. Tell each file its own faults."""
    for row in rows:
        row.fault = f"not sent: {refusal}"
    faults: dict[int, list[str]] = {}
    for field, message in refusal.faults:
        if (place := _IN_BATCH.fullmatch(field)) and int(place[1]) < len(rows):
            faults.setdefault(int(place[1]), []).append(f"{place[2]}: {message}")
    for index, row in enumerate(rows if faults else ()):
        row.fault = "; ".join(faults[index]) if index in faults else "not sent: another file of its batch was refused"


async def _upload_each(client: JobClient, rows: Sequence[_Row], question: Question) -> None:
    for row in rows:
        client.restart_clock()
        try:
            reply = await upload(client, row.candidate.path, question, row.manifest_uri)
        except NotFoundOut as fault:
            row.fault = str(fault)
        except OSError as error:
            row.fault = f"it cannot be read ({error.strerror or error})"
        else:
            if reply.get("mode") == "sync":
                row.job = reply
            else:
                row.job_id = str(reply.get("jobId"))


async def _follow_all(client: JobClient, rows: Sequence[_Row], bars: Progress) -> None:
    """One after the other, as they stand in line: each costs one request, and most have ended when it is made."""
    bar = bars.add_task("verifying", total=len(rows))
    lost: str | None = None
    for row in rows:
        assert row.job_id is not None
        if lost is not None:
            # Who waited in vain for one job does not wait as long again for each of those behind it.
            row.fault = f"not waited for; the job goes on: {client.job_url(row.job_id)}"
            continue
        client.restart_clock()
        try:
            row.job = await client.follow(row.job_id, lambda _job: None)
        except Refused as refusal:
            row.fault = str(refusal)
        except NotFoundOut as fault:
            row.fault = lost = str(fault)
        bars.advance(bar)


def _write_results(rows: Sequence[_Row], folder: Path) -> None:
    """Each result as JSON in ``folder``, under the file's name; those that share one keep their folders."""
    names = Counter(row.candidate.path.name for row in rows)
    paths = [row.candidate.path.absolute() for row in rows]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    for row, path in zip(rows, paths, strict=True):
        result = None if row.job is None else row.job.get("result")
        if isinstance(result, dict):
            below = path.relative_to(common) if names[path.name] > 1 else Path(path.name)
            target = folder / below.with_name(f"{below.name}.json")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _print_table(rows: Sequence[_Row]) -> None:
    say(("verdict  file", "dim"))
    for row in rows:
        verdict = row.verdict
        say((f"{verdict or _UNKNOWN:7}", COLOURS.get(verdict or "", "")), f"  {printable(row.candidate.shown)}")
        if row.reason:
            say(f"         {printable(row.reason)}")
    counts = Counter(row.verdict for row in rows)
    told = [f"{counts[verdict]} {verdict}" for verdict in EXIT_CODES if counts[verdict]]
    if counts[None]:
        told.append(f"{counts[None]} not found out")
    say(f"\n{len(rows)} {'file' if len(rows) == 1 else 'files'}: {', '.join(told)}")
