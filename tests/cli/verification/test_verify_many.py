"""Test ``iidq verify`` with many files, against a running `iidq up`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.cli.conftest import Done, Playground
from tests.cli.sandbox import wait_until
from tests.cli.verification.strange_service import answering
from tests.job_rows import scalar

Iidq = Callable[..., Done]
WAITING = """SELECT count(*) FROM "VerificationJob" WHERE status = 'queued'"""


@pytest.fixture
def photos(playground: Playground, tmp_path: Path) -> Path:
    """A folder with the sample file, a copy in a subfolder, and an unregistered file."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(playground.file, folder / "a.wav")
    shutil.copy(playground.file, folder / "sub" / "a.wav")
    (folder / "b.wav").write_bytes(b"unknown")
    return folder


@pytest.fixture
def ask(playground: Playground, iidq: Iidq) -> Iidq:
    """Run ``iidq verify`` against the playground, with the manifest of the sample unless ``--manifests`` is given."""

    def run(*arguments: str, **variables: str) -> Done:
        named = () if "--manifests" in arguments else ("--manifest", playground.manifest)
        environment = {"IIDQ_SERVER": playground.api, "IIDQ_REGISTRY": playground.registry, **variables}
        return iidq("verify", *arguments, *named, **environment)

    return run


def test_a_folder_is_one_batch_and_one_table(ask: Iidq, photos: Path, playground: Playground) -> None:
    """The table has a line for each file with failed checks, then the counts; the worst verdict sets the exit code."""
    with psycopg.connect(playground.database_url, autocommit=True) as connection:
        newest = """SELECT count(DISTINCT "createdAt") FROM "VerificationJob" WHERE id::text >= %s"""
        done = ask("--recursive", "photos", "--json")
        rows = {row["file"]: row for row in json.loads(done.stdout)}
        first = min(row["job"]["id"] for row in rows.values())
        assert connection.execute(newest.encode(), [first]).fetchone() == (1,)
    assert {file: row["verdict"] for file, row in rows.items()} == {
        "photos/a.wav": "OK",
        "photos/b.wav": "FAIL",
        "photos/sub/a.wav": "OK",
    }
    assert rows["photos/a.wav"]["job"]["fileName"] == "a.wav"
    table = ask("--recursive", "photos")
    assert (done.returncode, table.returncode, table.stderr) == (1, 1, "")
    header, a, b, reason, deeper, *_, counts = table.stdout.splitlines()
    assert (header, a, b, deeper) == (
        "verdict  file",
        "OK       photos/a.wav",
        "FAIL     photos/b.wav",
        "OK       photos/sub/a.wav",
    )
    assert "content.hashMatchesManifest" in reason
    assert counts == "3 files: 2 OK, 1 FAIL"


def test_files_that_cannot_be_asked_about_stand_in_the_table(ask: Iidq, photos: Path) -> None:
    """An unreadable file is in the table and gives exit code 2; the other files are still verified."""
    (photos / "b.wav").unlink()
    done = ask("photos/*.wav", "photos/none.wav", "photos/sub")
    assert done.returncode == 2
    assert "?        photos/none.wav\n         it cannot be read (No such file or directory)" in done.stdout
    assert "?        photos/sub\n         it cannot be read (Is a directory)" in done.stdout
    assert done.stdout.endswith("3 files: 1 OK, 2 not found out\n")


def test_a_list_gives_each_file_its_manifest(ask: Iidq, photos: Path, playground: Playground) -> None:
    """A wrong line in a list holds back its whole batch and is reported for its file; the corrected list is sent."""
    listed = photos / "list.csv"
    listed.write_text(f"a.wav,{playground.manifest}\nsub/a.wav,ftp://x\n", encoding="utf-8")
    done = ask("--manifests", str(listed))
    assert done.returncode == 2
    assert "not sent: another file of its batch was refused" in done.stdout
    assert "sub/a.wav\n         manifestURI: " in done.stdout
    listed.write_text(f"a.wav,{playground.manifest}\nsub/a.wav,{playground.manifest}\n", encoding="utf-8")
    assert ask("--manifests", str(listed)).stdout.endswith("2 files: 2 OK\n")
    assert ask("--manifests", str(listed), str(photos / "a.wav")).stdout.startswith("OK: ")


def test_results_are_written_into_a_folder(ask: Iidq, photos: Path, tmp_path: Path) -> None:
    """Results of files with the same name are separate files."""
    (photos / "b.wav").unlink()
    done = ask("-r", "photos", "--upload", "-o", "results")
    assert done.returncode == 0, done
    written = sorted(
        path.relative_to(tmp_path / "results").as_posix() for path in (tmp_path / "results").rglob("*.json")
    )
    assert written == ["a.wav.json", "sub/a.wav.json"]
    assert json.loads((tmp_path / "results" / written[0]).read_bytes())["status"] == "OK"


def test_waiting_for_many_has_an_end(ask: Iidq, photos: Path, playground: Playground) -> None:
    """One timeout covers all jobs of a run; unfinished jobs continue, and the table has their URLs."""
    with psycopg.connect(playground.database_url, autocommit=True) as connection:
        connection.execute("SELECT pause_queue('a test')")
        try:
            done = ask("-r", "photos", "--timeout", "1")
        finally:
            connection.execute("SELECT resume_queue()")
    assert done.returncode == 2
    assert done.stdout.count("the job goes on: http") == 3
    assert done.stdout.endswith("3 files: 3 not found out\n")


def test_an_interrupt_leaves_the_jobs_alone(photos: Path, playground: Playground) -> None:
    """Ctrl-C gives exit code 130 and one line with the number of unfinished jobs and a command to list jobs."""
    with psycopg.connect(playground.database_url, autocommit=True) as connection:
        connection.execute("SELECT pause_queue('a test')")
        try:
            before = scalar(connection, WAITING)
            running = playground.sandbox.start(
                *("verify", "--recursive", str(photos), "--manifest", playground.manifest),
                *("--registry", playground.registry, "--server", playground.api),
            )
            wait_until(lambda: scalar(connection, WAITING) == before + 3, "the jobs")
            running.interrupt(whole_group=True)
            assert running.wait() == 130
        finally:
            connection.execute("SELECT resume_queue()")
    assert running.output == f"iidq: stopped; 3 jobs go on: see `iidq jobs list --server {playground.api}`\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a", "--registry", "0x" + "0" * 40), "--manifest or --manifests"),
        (("--manifest", "ipfs://x", "--registry", "0x" + "0" * 40), "FILE"),
        (("a", "--manifest", "{x}", "--registry", "0x" + "0" * 40), "placeholder {x}"),
        (("--manifests", "none.csv", "--registry", "0x" + "0" * 40), "No such file"),
        (("-r", "none/*", "--manifest", "ipfs://x", "--registry", "0x" + "0" * 40), "there is no file"),
    ],
)
def test_arguments_that_name_nothing_are_exit_code_2(iidq: Iidq, arguments: tuple[str, ...], said: str) -> None:
    """Missing files, manifests or options are reported before the first request."""
    done = iidq("verify", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_missing_key_is_told(iidq: Iidq, tmp_path: Path) -> None:
    """A service with a key accepts batches only with the key; the table names the variable to set."""
    (tmp_path / "a").write_bytes(b"x")
    with answering(401, {"error": "Unauthorized"}) as url:
        done = iidq("verify", "-r", ".", "--manifest", "ipfs://x", "--registry", "0x" + "0" * 40, IIDQ_SERVER=url)
    assert done.returncode == 2
    assert "asks for a key: set IIDQ_API_KEY" in done.stdout
