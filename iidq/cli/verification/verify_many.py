"""``iidq verify`` for any number of files: hash, send in batches, print a table."""

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

from iidq.cli.api_client import Body, JobClient, NoAnswer, Refused
from iidq.cli.terminal import INTERRUPTED, byte_bars, complain, count_bars, printable, say
from iidq.cli.verification.input_files import (
    InputFile,
    ManifestList,
    UnusableArguments,
    file_name_field,
    find_files,
    hash_file,
    is_glob,
)
from iidq.cli.verification.verdict_words import (
    COLOURS,
    EXIT_CODES,
    NO_VERDICT,
    exit_code,
    reason,
    verdict_of,
    worst,
)
from iidq.cli.verification.verify_one import ServerOptions, VerifyOptions, upload_file, verify_one
from iidq.queue.job import MAX_BATCH_JOBS

_UNKNOWN: Final = "?"
_BATCH_FIELD: Final = re.compile(r"jobs\[(\d{1,4})\]\.?(.*)")


@dataclass(slots=True)
class _Row:
    """A file's line of the table, filled in step by step."""

    file: InputFile
    content_hash: str = ""
    manifest_uri: str = ""
    sent: bool = False
    """Whether the service may have a job of it."""
    job_id: str | None = None
    job: Body | None = None
    """The ended job, or the synchronous reply."""
    fault: str | None = None
    """Why there is no ended job."""

    @property
    def verdict(self) -> str | None:
        return None if self.job is None else verdict_of(self.job)

    @property
    def reason(self) -> str:
        if self.fault is not None:
            return self.fault
        return "" if self.job is None else reason(self.job)

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file.shown,
            "verdict": self.verdict,
            "error": self.reason if self.verdict is None else None,
            "job": self.job,
        }


def verify_files(
    arguments: list[str],
    options: VerifyOptions,
    server: ServerOptions,
    *,
    recursive: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Print the verdicts and return the exit code: 0 for OK, 1 for FAIL, 3 for WARN, 2 for none.

    A single file gets a verdict with reasons. Folders, patterns, lists and several files get a table.
    """
    try:
        if len(arguments) == 1 and not recursive and not is_glob(arguments[0]):
            [file] = find_files(arguments, recursive=False)
            return verify_one(file, options, server, output=output, as_json=as_json)
        listed = options.manifests.files if isinstance(options.manifests, ManifestList) else []
        files = find_files(arguments, recursive=recursive) if arguments else listed
        return _verify_many(files, options, server, output=output, as_json=as_json)
    except (NoAnswer, UnusableArguments) as fault:
        complain(str(fault))
    except OSError as error:
        complain(f"{error.filename or arguments[0]}: {error.strerror or error}")
    return NO_VERDICT


def _verify_many(
    files: Sequence[InputFile], options: VerifyOptions, server: ServerOptions, *, output: Path | None, as_json: bool
) -> int:
    rows = [_Row(file) for file in files]
    try:
        _hash_all(rows, options)
        asyncio.run(_run_all(rows, options, server))
    except KeyboardInterrupt:
        going_on = sum(row.sent and row.job is None and row.fault is None for row in rows)
        complain(
            f"stopped; {going_on} jobs go on: see `iidq jobs list --server {server.server.rstrip('/')}`"
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


def _hash_all(rows: Sequence[_Row], options: VerifyOptions) -> None:
    with byte_bars() as bars:
        for row in rows:
            try:
                row.content_hash = hash_file(row.file.path, bars)
                row.manifest_uri = options.manifests.uri_for(row.file, row.content_hash)
            except UnusableArguments as fault:
                row.fault = str(fault)
            except OSError as error:
                row.fault = _unreadable(error)


def _unreadable(error: OSError) -> str:
    return f"it cannot be read ({error.strerror or error})"


async def _run_all(rows: Sequence[_Row], options: VerifyOptions, server: ServerOptions) -> None:
    async with server.client() as client:
        usable = [row for row in rows if row.fault is None]
        if options.upload:
            await _upload_each(client, usable, options)
        else:
            for start in range(0, len(usable), MAX_BATCH_JOBS):
                await _send_batch(client, usable[start : start + MAX_BATCH_JOBS], options)
        with count_bars() as bars:
            await _follow_all(client, [row for row in usable if row.job_id is not None], bars)


async def _send_batch(client: JobClient, rows: Sequence[_Row], options: VerifyOptions) -> None:
    jobs = [
        options.fields(row.manifest_uri)
        | {"type": options.kind, "contentHash": row.content_hash}
        | file_name_field(row.file.path)
        for row in rows
    ]
    client.restart_clock()
    for row in rows:
        row.sent = True
    try:
        job_ids = await client.send_batch(jobs)
    except Refused as refusal:
        _assign_faults(rows, refusal)
    except NoAnswer as fault:
        for row in rows:
            row.fault = str(fault)
    else:
        for row, job_id in zip(rows, job_ids, strict=True):
            row.job_id = job_id


def _assign_faults(rows: Sequence[_Row], refusal: Refused) -> None:
    """Assign each fault to the right file; a single fault refuses the whole batch."""
    for row in rows:
        row.fault = f"not sent: {refusal}"
    faults: dict[int, list[str]] = {}
    for field, message in refusal.faults:
        if (found := _BATCH_FIELD.fullmatch(field)) and int(found[1]) < len(rows):
            faults.setdefault(int(found[1]), []).append(f"{found[2]}: {message}")
    for index, row in enumerate(rows if faults else ()):
        row.fault = "; ".join(faults[index]) if index in faults else "not sent: another file of its batch was refused"


async def _upload_each(client: JobClient, rows: Sequence[_Row], options: VerifyOptions) -> None:
    for row in rows:
        client.restart_clock()
        try:
            reply = await upload_file(client, row.file.path, options, row.manifest_uri)
        except NoAnswer as fault:
            row.fault = str(fault)
        except OSError as error:
            row.fault = _unreadable(error)
        else:
            if reply.get("mode") == "sync":
                row.job = reply
            else:
                row.job_id = str(reply.get("jobId"))


async def _follow_all(client: JobClient, rows: Sequence[_Row], bars: Progress) -> None:
    """Follow the jobs in the order of the queue: most have ended by then, and cost a single request."""
    bar = bars.add_task("verifying", total=len(rows))
    timed_out = False
    for row in rows:
        assert row.job_id is not None
        if timed_out:
            # After one timeout the jobs behind get no timeout of their own.
            row.fault = f"not waited for; the job goes on: {client.job_url(row.job_id)}"
            continue
        client.restart_clock()
        try:
            row.job = await client.follow(row.job_id, lambda _job: None)
        except Refused as refusal:
            row.fault = str(refusal)
        except NoAnswer as fault:
            row.fault = str(fault)
            timed_out = True
        bars.advance(bar)


def _write_results(rows: Sequence[_Row], folder: Path) -> None:
    """Write each result as JSON into ``folder``, by file name; files of the same name keep the folders."""
    names = Counter(row.file.path.name for row in rows)
    paths = [row.file.path.absolute() for row in rows]
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
        say((f"{verdict or _UNKNOWN:7}", COLOURS.get(verdict or "", "")), f"  {printable(row.file.shown)}")
        if row.reason:
            say(f"         {printable(row.reason)}")
    counts = Counter(row.verdict for row in rows)
    parts = [f"{counts[verdict]} {verdict}" for verdict in EXIT_CODES if counts[verdict]]
    if counts[None]:
        parts.append(f"{counts[None]} not found out")
    say(f"\n{len(rows)} {'file' if len(rows) == 1 else 'files'}: {', '.join(parts)}")
