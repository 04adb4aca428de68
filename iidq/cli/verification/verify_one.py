"""``iidq verify`` for a single file: hash, send, follow the job, print the verdict."""

import asyncio
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from iidq.cli.api_client import Body, JobClient, NoAnswer
from iidq.cli.terminal import INTERRUPTED, byte_bars, complain, job_bars, printable, say
from iidq.cli.verification.input_files import (
    InputFile,
    ManifestList,
    ManifestTemplate,
    UnusableArguments,
    file_name_field,
    hash_file,
)
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
from iidq.observability.redaction import redact_url


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The service to use."""

    server: str
    """Its URL."""
    api_key: str | None
    """Its key; None for a service without one."""
    timeout_seconds: float
    """Longest wait for one verdict."""

    def client(self) -> JobClient:
        """Return a client of the service."""
        return JobClient(self.server, self.api_key, timeout_seconds=self.timeout_seconds)


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """The options of every verification."""

    manifests: ManifestTemplate | ManifestList
    """Source of each file's manifest URI."""
    registry: str
    """Address of the ContentRegistry, ``0x…``."""
    chain_id: int | None
    """The registry's chain; None for the service's default chain."""
    proof: bool
    """Whether to make a proof as well."""
    upload: bool
    """Whether to send the file instead of its hash."""

    @property
    def kind(self) -> str:
        """The type of the job."""
        return "proof" if self.proof else "verify"

    def fields(self, manifest_uri: str) -> dict[str, str]:
        """Return the form's fields without the file or hash."""
        fields = {"manifestURI": manifest_uri, "registryAddress": self.registry}
        return fields if self.chain_id is None else fields | {"chainId": str(self.chain_id)}


async def upload_file(client: JobClient, path: Path, options: VerifyOptions, manifest_uri: str) -> Body:
    """Submit a job with the file and return the reply."""
    name = file_name_field(path).get("fileName", "file")
    with byte_bars() as bars, bars.open(path, "rb", description=f"sending {printable(name)[:16]}") as file:
        # httpx rewinds the file for each attempt.
        return await client.send(
            options.kind, lambda: {"data": options.fields(manifest_uri), "files": {"file": (name, file)}}
        )


def verify_one(
    file: InputFile, options: VerifyOptions, server: ServerOptions, *, output: Path | None, as_json: bool
) -> int:
    """Print the verdict with reasons and return the exit code; raise :class:`NoAnswer` without a verdict."""
    path = file.path
    if path.is_dir():
        raise UnusableArguments(f"{path} is a folder; --recursive verifies the files in it")
    verification = _Verification(file, options, server)
    try:
        verification.hash()
        body = asyncio.run(verification.run())
    except KeyboardInterrupt:
        job_url = verification.job_url
        complain(f"stopped; the job goes on: {job_url}" if job_url else "stopped; nothing was sent")
        return INTERRUPTED
    result = body.get("result")
    if output is not None and isinstance(result, dict):
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(body))
    verdict = verdict_of(body)
    if verdict is None:
        raise NoAnswer(f"it could not be found out: {why_not(body)}")
    if not as_json:
        facts = {"file": path.name, "manifest": verification.manifest_uri, "registry": options.registry}
        if verification.job_url:
            facts["job"] = verification.job_url
        print_verdict(body, facts, _same_options(path, options, server))
        if options.proof:
            say(f"\nThe proof is in {output}." if output else "\n--output FILE or --json gives the proof itself.")
    return exit_code(verdict)


class _Verification:
    def __init__(self, file: InputFile, options: VerifyOptions, server: ServerOptions) -> None:
        self._file = file
        self._options = options
        self._server = server
        self._content_hash = ""
        self.manifest_uri = ""
        self.job_url = ""
        """Set once the service has accepted the job."""

    def hash(self) -> None:
        """Hash the file, also for an upload: the manifest's URI may contain the hash."""
        with byte_bars() as bars:
            self._content_hash = hash_file(self._file.path, bars)
        self.manifest_uri = self._options.manifests.uri_for(self._file, self._content_hash)

    async def run(self) -> Body:
        """Return the ended job, or the synchronous reply of a service without a queue."""
        options, path = self._options, self._file.path
        async with self._server.client() as client:
            if options.upload:
                body = await upload_file(client, path, options, self.manifest_uri)
            else:
                fields = options.fields(self.manifest_uri) | {"contentHash": self._content_hash}
                body = await client.send(options.kind, lambda: {"json": fields | file_name_field(path)})
            if body.get("mode") == "sync":
                return body
            job_id = str(body.get("jobId"))
            self.job_url = client.job_url(job_id)
            with job_bars() as bars:
                bar = bars.add_task("waiting in line", total=100)
                return await client.follow(
                    job_id, lambda job: bars.update(bar, completed=job.get("progress") or 0, description=step_of(job))
                )


def _same_options(path: Path, options: VerifyOptions, server: ServerOptions) -> list[str]:
    chain = [] if options.chain_id is None else ["--chain", str(options.chain_id)]
    kind = ["--proof"] if options.proof else []
    upload = ["--upload"] if options.upload else []
    words = ["--registry", options.registry, *chain, *kind, *upload, "--server", redact_url(server.server)]
    return [*words, "--", str(path)]


def print_verdict(job: Body, facts: dict[str, str], options: list[str]) -> None:
    """Print the verdict of a completed job: the headline, ``facts``, the registration, each check.

    ``options`` are the words of `iidq verify` for the same file, without ``--manifest``.
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
        say(f"  {printable(shlex.join(['iidq', 'verify', '--manifest', uri, *options]))}")
