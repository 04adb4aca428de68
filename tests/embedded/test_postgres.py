"""The embedded Postgres: start and end, and no changes to the rest of the machine."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from iidq.embedded.postgres import EmbeddedPostgres, PostgresNotStarted, wheel_binaries
from tests.cli.sandbox import Sandbox, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

_RUN_UNTIL_KILLED = """
import pathlib, sys, time
from iidq.embedded.postgres import EmbeddedPostgres
server = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
server.start()
print("pid", server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Yield a new sandbox."""
    with Sandbox() as place:
        yield place


def _rights(*paths: Path) -> dict[Path, tuple[int, int, int]]:
    """Return permissions and owners of the paths, of everything above, and of the list of users."""
    seen = {above for path in paths for above in (path, *path.parents)} | {Path("/etc/passwd")}
    return {path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in seen}


def test_data_outlives_a_stop(sandbox: Sandbox) -> None:
    """Written data is still there after a stop and start, also after a crash."""
    server = EmbeddedPostgres(sandbox.folder / "postgres")
    try:
        server.start()
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        for how in (signal.SIGINT, signal.SIGQUIT):
            server.stop(how)
            assert server.pid is None
            server.start()
            with psycopg.connect(server.url) as connection:
                assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    finally:
        server.close()
    assert not list((sandbox.folder / "postgres").glob(".s.PGSQL*"))


def test_nothing_outside_its_folder_changes(sandbox: Sandbox) -> None:
    """The server changes no permissions or owners above its folder or the binaries, and not the list of users."""
    home = sandbox.folder / "above" / "postgres"
    home.parent.mkdir(mode=0o711)
    before = _rights(home.parent, wheel_binaries())
    users = Path("/etc/passwd").read_bytes()
    server = EmbeddedPostgres(home)
    try:
        server.start()
        assert _rights(home.parent, wheel_binaries()) == before
    finally:
        server.close()
    assert _rights(home.parent, wheel_binaries()) == before
    assert Path("/etc/passwd").read_bytes() == users
    assert home.stat().st_mode & 0o077 == 0


@as_root
def test_binaries_in_a_private_folder_stay_private(sandbox: Sandbox) -> None:
    """A server run by root from a virtual environment closed to other users works, and the folder stays closed."""
    private = sandbox.folder / "private"
    private.mkdir(mode=0o700)
    package = wheel_binaries().parent.parent
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, private / source.name, symlinks=True)
    binaries = private / package.name / "pginstall" / "bin"
    before = _rights(binaries, sandbox.folder)
    server = EmbeddedPostgres(sandbox.folder / "postgres", binaries=binaries)
    try:
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.close()
    assert _rights(binaries, sandbox.folder) == before


@as_root
def test_unreachable_home_is_refused(sandbox: Sandbox) -> None:
    """A server run by root below a folder closed to other users is refused with the reason, and the folder stays
    closed.
    """
    closed = sandbox.folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PostgresNotStarted, match=f"cannot reach {closed}"):
        EmbeddedPostgres(closed / "postgres").start()
    assert closed.stat().st_mode & 0o777 == 0o700


def test_folder_with_other_files_is_refused(sandbox: Sandbox) -> None:
    """A folder with other files is refused: no owner changes there, and no file is added."""
    home = sandbox.folder / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    before = _rights(home)
    with pytest.raises(PostgresNotStarted, match=r"holds other files \(thesis\.txt\)"):
        EmbeddedPostgres(home).start()
    assert _rights(home) == before
    assert [path.name for path in home.iterdir()] == ["thesis.txt"]


def test_only_its_owner_can_connect(sandbox: Sandbox) -> None:
    """The server's socket is closed to other users of the machine; its users are superusers in the database."""
    home = sandbox.folder / "postgres"
    home.mkdir(mode=0o755)
    server = EmbeddedPostgres(home)
    try:
        server.start()
        assert (home / ".s.PGSQL.5432").stat().st_mode & 0o077 == 0
    finally:
        server.close()


def test_long_folder_names_do_not_matter(sandbox: Sandbox) -> None:
    """The server starts although the path is too long for a Unix socket, and the socket's folder is removed with the
    server.
    """
    server = EmbeddedPostgres(sandbox.folder / ("long" * 25) / "postgres")
    (sandbox.folder / ("long" * 25)).mkdir(mode=0o711)
    try:
        server.start()
        with psycopg.connect(server.url) as connection:
            found = connection.execute("SHOW unix_socket_directories").fetchone()
        assert found is not None
        assert Path(found[0]).is_dir()
    finally:
        server.close()
    assert not Path(found[0]).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's own")
def test_dies_with_a_killed_parent(sandbox: Sandbox) -> None:
    """After `kill -9` of the parent, the server and all its processes end."""
    home = sandbox.folder / "postgres"
    parent = sandbox.start_program(sys.executable, "-c", _RUN_UNTIL_KILLED, str(home))
    parent.wait_until_says("pid ")
    server = int(parent.output.split()[-1])
    assert server in sandbox.processes()
    parent.process.kill()
    parent.wait()
    wait_until(lambda: not sandbox.processes(), "the end of the server")
