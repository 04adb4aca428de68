"""Run ``iidq verify`` as users and scripts do, against a running `iidq up`."""

import asyncio
import hashlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from iidq.embedded.demo_registry import register
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from tests.cli.conftest import Done, Playground
from tests.cli.sandbox import wait_until
from tests.cli.verification.strange_service import answering
from tests.job_rows import scalar

Iidq = Callable[..., Done]
UNREGISTERED = "0x000000000000000000000000000000000000dEaD"
ELSEWHERE = "http://127.0.0.1:9"


@pytest.fixture
def ask(iidq: Iidq) -> Iidq:
    """Verify the sample file, or ``file``, with the service of the playground."""

    def run(playground: Playground, *arguments: str, file: str | Path | None = None) -> Done:
        return iidq(
            *("verify", str(file or playground.file), "--manifest", playground.manifest),
            *("--registry", playground.registry, "--server", playground.api),
            *arguments,
        )

    return run


def job_of(playground: Playground, done: Done) -> dict[str, Any]:
    """Return the job as printed by ``--json``."""
    job = json.loads(done.stdout)
    assert isinstance(job, dict)
    return job


def test_a_genuine_file_is_ok(ask: Iidq, playground: Playground) -> None:
    """A genuine file gives exit code 0, the verdict in words, creator, time and each check with its outcome."""
    done = ask(playground)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("OK: this is what its creator registered.")
    for part in (playground.manifest, playground.registry, "creator", "since", "✓ content.hashMatchesManifest"):
        assert part in done.stdout
    assert "✗" not in done.stdout


def test_the_job_is_followed_by_its_events(ask: Iidq, playground: Playground) -> None:
    """The client follows the job by events, and does not poll."""
    path = f"/api/verification-jobs/{job_of(playground, ask(playground, '--json'))['id']}"
    wait_until(lambda: f'"{path}/events"' in playground.running.output, "the access log's line")
    assert f'"{path}"' not in playground.running.output


def test_a_tampered_file_fails(ask: Iidq, playground: Playground, tmp_path: Path) -> None:
    """A changed file gives exit code 1 and the failed check."""
    tampered = tmp_path / "song.wav"
    tampered.write_bytes(Path(playground.file).read_bytes() + b"!")
    done = ask(playground, file=tampered)
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL: ")
    assert "✗ content.hashMatchesManifest" in done.stdout
    assert done.stdout.startswith("FAIL: this file is not registered")
    assert "To verify with" not in done.stdout


def test_another_manifest_is_told_from_a_changed_file(ask: Iidq, playground: Playground, tmp_path: Path) -> None:
    """A registered file with the manifest of another file is called registered, with a command for its manifest."""
    other = tmp_path / "o'ther file.txt"
    other.write_bytes(b"a registered text")
    uri = f"{playground.manifest}?for=other"
    content_hash = "0x" + hashlib.sha256(other.read_bytes()).hexdigest()
    asyncio.run(register(playground.rpc_url, playground.registry, DEVELOPMENT_KEYS[1], content_hash, uri))
    done = ask(playground, "--proof", file=other)
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL: this file is registered, but the manifest given describes another file.")
    command = next(line for line in done.stdout.splitlines() if line.startswith("  iidq verify "))
    assert shlex.split(command)[2:] == [
        *("--manifest", uri, "--registry", playground.registry, "--proof", "--server", playground.api, "--", str(other))
    ]


def test_json_is_the_job(ask: Iidq, playground: Playground) -> None:
    """``--json`` prints the job as HTTP clients get it, and no other output."""
    job = job_of(playground, ask(playground, "--json"))
    assert (job["status"], job["result"]["status"], job["type"]) == ("completed", "OK", "verify")
    assert (job["fileName"], job["contentHash"]) == (
        Path(playground.file).name,
        "0x" + hashlib.sha256(Path(playground.file).read_bytes()).hexdigest(),
    )


def test_an_upload_comes_to_the_same_verdict(ask: Iidq, playground: Playground) -> None:
    """``--upload`` sends the file, and the service's hash equals the client's hash."""
    by_hash, uploaded = (
        job_of(playground, ask(playground, "--json")),
        job_of(playground, ask(playground, "--json", "--upload")),
    )
    assert uploaded["result"]["status"] == "OK"
    assert uploaded["contentHash"] == by_hash["contentHash"]


def test_a_proof_is_written(ask: Iidq, iidq: Iidq, playground: Playground, tmp_path: Path) -> None:
    """``--proof --output`` writes a proof accepted by `iidq check-proof`."""
    output = tmp_path / "proof.json"
    done = ask(playground, "--proof", "--output", str(output))
    assert (done.returncode, str(output) in done.stdout) == (0, True)
    assert json.loads(output.read_bytes())["verification"]["status"] == "OK"
    assert iidq("check-proof", str(output)).returncode == 0


def test_a_job_that_fails_is_not_found_out(iidq: Iidq, playground: Playground) -> None:
    """A failed job gives exit code 2 and the job's error, because no verdict is not a bad verdict."""
    done = iidq(
        "verify",
        *(playground.file, "--manifest", playground.manifest, "--registry", UNREGISTERED, "--server", playground.api),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "registry." in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--manifest", "ftp://x", "--registry", UNREGISTERED), "manifestURI"),
        (("--manifest", "ipfs://x", "--registry", "0x1"), "expected 0x and 40 hex digits"),
        (("--manifest", "ipfs://x", "--registry", UNREGISTERED, "--server", ELSEWHERE), "is `iidq serve` running"),
        (("--manifest", "ipfs://x", "--registry", UNREGISTERED, "--server", "localhost:3001"), "http://host:port"),
        (("--manifest", "ipfs://x", "--registry", UNREGISTERED, "--server", "http://[::"), "http://host:port"),
        (("--manifest", "ipfs://x"), "--registry"),
    ],
)
def test_what_cannot_be_asked_is_exit_code_2(
    iidq: Iidq, playground: Playground, arguments: tuple[str, ...], said: str
) -> None:
    """Refused fields, an unavailable service and wrong options each give exit code 2 and the cause."""
    done = iidq(
        "verify", playground.file, *arguments, **({} if "--server" in arguments else {"IIDQ_SERVER": playground.api})
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_read_is_exit_code_2(ask: Iidq, playground: Playground, tmp_path: Path) -> None:
    """A missing file or a folder is named in the error."""
    for path in (tmp_path / "none", tmp_path):
        done = ask(playground, file=path)
        assert done.returncode == 2
        assert str(path) in done.stderr


def test_waiting_has_an_end(ask: Iidq, playground: Playground) -> None:
    """The client stops after --timeout with exit code 2 and the URL of the job."""
    with psycopg.connect(playground.database_url, autocommit=True) as connection:
        connection.execute("SELECT pause_queue('a test')")
        try:
            done = ask(playground, "--timeout", "1")
        finally:
            connection.execute("SELECT resume_queue()")
    assert done.returncode == 2
    url = done.stderr.split()[-1]
    assert httpx.get(url, trust_env=False).json()["status"] in ("queued", "processing", "completed")


def test_an_interrupt_leaves_the_job_alone(playground: Playground) -> None:
    """Ctrl-C is neither a verdict nor an error: exit code 130 and one line."""
    waiting = """SELECT count(*) FROM "VerificationJob" WHERE status = 'queued'"""
    with psycopg.connect(playground.database_url, autocommit=True) as connection:
        connection.execute("SELECT pause_queue('a test')")
        try:
            before = scalar(connection, waiting)
            running = playground.sandbox.start(
                *("verify", playground.file, "--manifest", playground.manifest),
                *("--registry", playground.registry, "--server", playground.api),
            )
            wait_until(lambda: scalar(connection, waiting) == before + 1, "the job")
            running.interrupt(whole_group=True)
            assert running.wait() == 130
        finally:
            connection.execute("SELECT resume_queue()")
    assert running.output.startswith("iidq: stopped")
    assert len(running.output.splitlines()) == 1


def test_a_service_without_its_queue_warns(iidq: Iidq, tmp_path: Path) -> None:
    """A synchronous reply is a verdict, too: WARN gives exit code 3 and the list of checks."""
    file = tmp_path / "a"
    file.write_bytes(b"x")
    checks = {"manifestHashOk": True, "creatorOk": True, "manifestOk": False}
    with answering(200, {"mode": "sync", "result": {"status": "WARN", "checks": checks}}) as url:
        done = iidq("verify", str(file), "--manifest", "ipfs://x", "--registry", UNREGISTERED, "--server", url)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("WARN: ")
    assert "✗ manifestOk" in done.stdout
