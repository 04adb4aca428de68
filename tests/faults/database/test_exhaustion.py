"""Postgres out of connections or of disk: a clear refusal, and nothing half done."""

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import errors

from iidq.database.migrate import migrate
from iidq.database.pool import open_database
from iidq.embedded.postgres import EmbeddedPostgres
from iidq.errors import DatabaseUnavailable
from iidq.queue.enqueuer import open_enqueuer
from iidq.settings import load_settings
from tests.job_rows import new_job, scalar
from tests.web.conftest import serve_api  # noqa: F401 — a fixture
from tests.web.serving import JOBS, ServeApi

MAX_CONNECTIONS = 8


def submission(number: int = 0) -> dict[str, str]:
    """Return the fields of a submission."""
    return {
        "registryAddress": "0x" + "ab" * 20,
        "manifestURI": f"https://example.org/{number}",
        "contentHash": f"0x{number:064x}",
    }


@contextlib.contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A folder open to the servers' account: run by root, the servers have another account."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def small_server() -> Iterator[EmbeddedPostgres]:
    """A migrated server with few connections and little room for notifications."""
    with folder_for_servers() as home:
        options = {
            "fsync": "off",
            "max_connections": str(MAX_CONNECTIONS),
            "superuser_reserved_connections": "1",
            "max_notify_queue_pages": "64",
        }
        server = EmbeddedPostgres(home / "postgres", options=options)
        server.start()
        try:
            migrate(server.url)
            yield server
        finally:
            server.close()


def refused(reply: httpx.Response) -> None:
    """Assert a 503 by the contract, with nothing internal in the body."""
    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
    body = reply.json()
    assert body["error"]
    assert body["correlationId"] == reply.headers["x-correlation-id"]
    assert not {"sql", "psycopg", "postgres", "traceback", "fatal"} & set(reply.text.lower().split())


async def test_too_many_connections(small_server: EmbeddedPostgres, serve_api: ServeApi) -> None:  # noqa: F811
    """The API answers 503 in JSON while all connections are taken, and serves again once one is free."""
    held: list[psycopg.Connection[Any]] = []
    try:
        with contextlib.suppress(psycopg.OperationalError):
            while len(held) < MAX_CONNECTIONS:
                held.append(psycopg.connect(small_server.url, autocommit=True))
        async with serve_api(database_url=small_server.url, sync_fallback="off") as api:
            replies = await asyncio.gather(*(api.post(f"{JOBS}/verify", json=submission(n)) for n in range(4)))
            for reply in replies:
                refused(reply)
            assert (await api.get(f"{JOBS}/stats")).json()["available"] is False
            assert scalar(held[0], 'SELECT count(*) FROM "VerificationJob"') == 0
            for connection in held[1:]:
                connection.close()
            async with asyncio.timeout(30):
                while (accepted := await api.post(f"{JOBS}/verify", json=submission())).status_code == 503:
                    pass
            assert accepted.status_code == 200
            assert scalar(held[0], 'SELECT array_agg(id::text) FROM "VerificationJob"') == [accepted.json()["jobId"]]
    finally:
        for connection in held:
            connection.close()


async def test_a_full_disk(small_server: EmbeddedPostgres, serve_api: ServeApi) -> None:  # noqa: F811
    """On a full disk submissions get 503, every acknowledged job is stored, and more room ends the refusals."""
    with small_disk(small_server) as disk:
        async with serve_api(database_url=small_server.url, sync_fallback="off") as api:
            acknowledged: list[str] = []
            full: list[httpx.Response] = []
            number = 0
            while not full:
                batch = [submission(number := number + 1) | {"fileName": "f" * 200} for _ in range(40)]
                for reply in await asyncio.gather(*(api.post(f"{JOBS}/verify", json=fields) for fields in batch)):
                    if reply.status_code == 200:
                        acknowledged.append(reply.json()["jobId"])
                    else:
                        full.append(reply)
                assert number < 100_000
            for reply in full:
                refused(reply)
            assert stored(small_server) == sorted(acknowledged)
            disk.make_room()
            again = await api.post(f"{JOBS}/verify", json=submission())
            assert again.status_code == 200
            assert stored(small_server) == sorted([*acknowledged, again.json()["jobId"]])
            with psycopg.connect(small_server.url, autocommit=True) as sql:
                assert scalar(sql, "SELECT waiting FROM queue_health") == len(acknowledged) + 1


async def test_no_room_for_notifications(small_server: EmbeddedPostgres) -> None:
    """A job is stored even while the queue of notifications is full."""
    with (
        psycopg.connect(small_server.url, autocommit=True) as hoarder,
        psycopg.connect(small_server.url, autocommit=True) as speaker,
    ):
        hoarder.execute("LISTEN noise")
        hoarder.execute("BEGIN")
        with pytest.raises(errors.ProgramLimitExceeded):
            for number in range(1000):
                speaker.execute("SELECT pg_notify('noise', %s)", [f"{number:07000}"])
        settings = load_settings("database_url", database_url=small_server.url)
        async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:
            job_ids = [await enqueuer.enqueue(new_job()) for _ in range(3)]
    assert stored(small_server) == sorted(map(str, job_ids))


def stored(server: EmbeddedPostgres) -> list[str]:
    """Return the ids of all rows, sorted."""
    with psycopg.connect(server.url, autocommit=True) as sql:
        return sorted(str(row[0]) for row in sql.execute('SELECT id FROM "VerificationJob"'))


class SmallDisk:
    """A file system with room for some jobs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make_room(self) -> None:
        """Grow the file system from 256 KiB to 16 MiB."""
        subprocess.run(["mount", "-o", "remount,size=16m", str(self.path)], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(server: EmbeddedPostgres) -> Iterator[SmallDisk]:
    """Move the table of jobs to a disk of its own; skip the test where a mount is not permitted."""
    path = server.home.parent / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0777", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here: that needs root")
    try:
        space = path / "space"
        space.mkdir()
        shutil.chown(space, "nobody")
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(f"CREATE TABLESPACE small LOCATION '{space}'".encode())
            admin.execute('ALTER TABLE "VerificationJob" SET TABLESPACE small')
        yield SmallDisk(path)
    finally:
        server.stop()
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
async def test_no_block_can_be_written(small_server: EmbeddedPostgres) -> None:
    """With a device full from the first block on, every job is refused and none stored; with room a job is stored."""
    with psycopg.connect(small_server.url, autocommit=True) as admin:
        table = small_server.data_path / scalar(admin, "SELECT pg_relation_filepath('\"VerificationJob\"')")
    small_server.stop()
    assert table.stat().st_size == 0
    table.unlink()
    table.symlink_to("/dev/full")
    small_server.start()
    settings = load_settings(database_url=small_server.url)
    async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:
        answers = await asyncio.gather(*(enqueuer.enqueue(new_job()) for _ in range(20)), return_exceptions=True)
        for answer in answers:
            assert isinstance(answer, DatabaseUnavailable)
            assert answer.code == "database.exhausted"
            assert isinstance(answer.__cause__, errors.DiskFull)
        small_server.stop()
        table.unlink()
        table.touch()
        shutil.chown(table, small_server.data_path.stat().st_uid, small_server.data_path.stat().st_gid)
        small_server.start()
        acknowledged = await enqueuer.enqueue(new_job())
    assert stored(small_server) == [str(acknowledged)]
