"""``iidq verify``: is this file what its creator registered? Asks a running service, as any HTTP client would."""

import asyncio
import json
import shlex
from pathlib import Path

from iidq.cli.api_client import Body, NotFoundOut
from iidq.cli.terminal import INTERRUPTED, NOT_FOUND_OUT, byte_bars, complain, job_bars, printable, say
from iidq.cli.verification.file_hash import hash_file, label_of
from iidq.cli.verification.input_files import Candidate, ManifestList, UnusableArguments, find_candidates, is_glob
from iidq.cli.verification.verdict_words import (
    COLOURS,
    SIGNS,
    checks,
    exit_code,
    headline,
    registered_manifest,
    registration,
    step_of,
    verdict_of,
    why_not,
)
from iidq.cli.verification.verify_many import verify_many
from iidq.cli.verification.verify_options import Question, Service, upload
from iidq.observability.redaction import redact_url


def verify(
    arguments: list[str],
    question: Question,
    service: Service,
    *,
    recursive: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Ask, follow, print; return 0 for OK, 1 for FAIL, 3 for WARN, 2 where it could not be found out.

    One plain file gets a verdict with its reasons; folders, patterns, lists and several files a table.
    """
    try:
        listed = question.manifests.candidates if isinstance(question.manifests, ManifestList) else []
        if len(arguments) == 1 and not recursive and not is_glob(arguments[0]):
            [candidate] = find_candidates(arguments, recursive=False)
            return _verify_one(candidate, question, service, output=output, as_json=as_json)
        candidates = find_candidates(arguments, recursive=recursive) if arguments else listed
        return verify_many(candidates, question, service, output=output, as_json=as_json)
    except (NotFoundOut, UnusableArguments) as fault:
        complain(str(fault))
        return NOT_FOUND_OUT
    except OSError as error:
        complain(f"{error.filename or arguments[0]}: {error.strerror or error}")
        return NOT_FOUND_OUT


def _verify_one(
    candidate: Candidate, question: Question, service: Service, *, output: Path | None, as_json: bool
) -> int:
    path = candidate.path
    if path.is_dir():
        raise UnusableArguments(f"{path} is a folder; --recursive asks about the files in it")
    asking = _AskingOne(candidate, question, service)
    try:
        asking.hash()
        body = asyncio.run(asking.ask())
    except KeyboardInterrupt:
        complain(f"stopped; the job goes on: {asking.job_url}" if asking.job_url else "stopped; nothing was sent")
        return INTERRUPTED
    result = body.get("result")
    if output is not None and isinstance(result, dict):
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(body))
    verdict = verdict_of(body)
    if verdict is None:
        raise NotFoundOut(f"it could not be found out: {why_not(body)}")
    if not as_json:
        told = {"file": path.name, "manifest": asking.manifest_uri, "registry": question.registry}
        print_verdict(body, told | ({"job": asking.job_url} if asking.job_url else {}), _asked(path, question, service))
        if question.proof:
            say(f"\nThe proof is in {output}." if output else "\n--output FILE or --json gives the proof itself.")
    return exit_code(verdict)


class _AskingOne:
    """One file's way to its verdict; ``job_url`` is set once there is a job."""

    def __init__(self, candidate: Candidate, question: Question, service: Service) -> None:
        self._path = candidate.path
        self._candidate = candidate
        self._question = question
        self._service = service
        self._content_hash = ""
        self.manifest_uri = ""
        self.job_url = ""

    def hash(self) -> None:
        """Hash the file, also where it is uploaded: its manifest may be named by the hash."""
        with byte_bars() as bars:
            self._content_hash = hash_file(self._path, bars)
        self.manifest_uri = self._question.manifests.uri_for(self._candidate, self._content_hash)

    async def ask(self) -> Body:
        """The ended job, or the reply of a service that has no queue at present."""
        async with self._service.client() as client:
            if self._question.upload:
                body = await upload(client, self._path, self._question, self.manifest_uri)
            else:
                fields = self._question.fields(self.manifest_uri) | {"contentHash": self._content_hash}
                body = await client.send(self._question.kind, lambda: {"json": fields | label_of(self._path)})
            if body.get("mode") == "sync":
                return body
            job_id = str(body.get("jobId"))
            self.job_url = client.job_url(job_id)
            with job_bars() as bars:
                bar = bars.add_task("waiting in line", total=100)
                return await client.follow(
                    job_id, lambda job: bars.update(bar, completed=job.get("progress") or 0, description=step_of(job))
                )


def _asked(path: Path, question: Question, service: Service) -> list[str]:
    chain = [] if question.chain_id is None else ["--chain", str(question.chain_id)]
    kind = ["--proof"] if question.proof else []
    upload = ["--upload"] if question.upload else []
    options = ["--registry", question.registry, *chain, *kind, *upload, "--server", redact_url(service.server)]
    return [*options, "--", str(path)]


def print_verdict(job: Body, facts: dict[str, str], asked: list[str]) -> None:
    """Print the verdict of a job that has one: in words, what was asked, who registered it, and each check.

    ``asked`` are the options and the file that `iidq verify` asks again with, but for its ``--manifest``.
    """
    verdict = verdict_of(job)
    assert verdict is not None
    result = job["result"]
    say((verdict, f"bold {COLOURS[verdict]}"), f": {headline(result, verdict)}.")
    for name, value in (facts | registration(result)).items():
        say(f"  {name:9} {printable(str(value))}")
    say("")
    for check in checks(result):
        say(f"  {SIGNS.get(check.outcome, '·')} {printable(check.text)}")
    if uri := registered_manifest(result, facts.get("manifest", "")):
        say("\nThe registry names another manifest. To verify with that one:")
        say(f"  {printable(shlex.join(['iidq', 'verify', '--manifest', uri, *asked]))}")
