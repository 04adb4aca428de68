"""A sandbox for a program under test, to find all files and processes of the program."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

_TIMEOUT_SECONDS = 60.0
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "PYTHONPATH")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll ``condition``; fail the test with the text of the second argument after the deadline."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {_TIMEOUT_SECONDS:g} s for: {what}"
        time.sleep(0.01)


class Running:
    """A started program, in a new session as in a terminal, with the output in a file."""

    def __init__(self, process: subprocess.Popen[bytes], output_path: Path) -> None:
        self.process = process
        self._output_path = output_path

    @property
    def output(self) -> str:
        """The output so far, of both streams."""
        return self._output_path.read_text(errors="replace")

    def wait_until_says(self, text: str) -> None:
        """Wait for ``text`` in the output; fail with the output if the program ends first."""

        def said() -> bool:
            return text in self.output or self.process.poll() is not None

        wait_until(said, f"{text!r} in the output")
        assert text in self.output, self.output

    def interrupt(self, number: signal.Signals = signal.SIGINT, *, whole_group: bool) -> None:
        """Send a signal to the process group, as Ctrl-C in a terminal does, or to the process alone, as `kill` does."""
        if whole_group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def wait(self) -> int:
        """Return the exit code; fail the test with the output after the deadline."""
        try:
            return self.process.wait(_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end:\n{self.output}") from None


class Sandbox:
    """A working folder, a folder for temporary files, and a marker inherited by every descendant."""

    def __init__(self) -> None:
        # Not pytest's tmp_path: as root, Postgres runs as an unprivileged user and must reach the folder.
        self.folder = Path(tempfile.mkdtemp(prefix="iidq-test-"))
        self.folder.chmod(0o711)
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir(mode=0o711)
        self.working = self.folder / "cwd"
        self.working.mkdir()
        self._marker = f"IIDQ_SANDBOX={uuid4().hex}"
        self._running: list[Running] = []

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of programs in the sandbox: of iidq's variables only ``variables``."""
        name, _, value = self._marker.partition("=")
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return {**kept, name: value, "TMPDIR": str(self.temporary), **variables}

    def start(self, *arguments: str, **variables: str) -> Running:
        """Start ``iidq`` with these arguments and environment variables."""
        return self.start_program(str(Path(sys.executable).with_name("iidq")), *arguments, **variables)

    def start_program(self, *command: str, **variables: str) -> Running:
        """Start any program."""
        output_path = self.folder / f"output-{len(self._running)}"
        with output_path.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.working,
                env=self.environment(**variables),
                start_new_session=True,
            )
        running = Running(process, output_path)
        self._running.append(running)
        return running

    def processes(self) -> dict[int, str]:
        """Return pid and command line of every live process of the sandbox."""
        return dict(self._processes())

    def _processes(self) -> Iterator[tuple[int, str]]:
        marks = (self._marker.encode(), bytes(self.folder))
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                # A Postgres backend overwrites its environment, but keeps its folder.
                place = os.fsencode((folder / "cwd").readlink())
                if any(mark in command + place + (folder / "environ").read_bytes() for mark in marks):
                    yield int(folder.name), command.replace(b"\0", b" ").decode(errors="replace").strip()

    def files(self) -> list[str]:
        """Return all paths in the folder for temporary files and in the working folder."""
        return [str(path) for folder in (self.temporary, self.working) for path in folder.rglob("*")]

    def assert_nothing_left(self) -> None:
        """Fail if a process or a file is left."""
        assert self.processes() == {}
        assert self.files() == []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all remaining processes of a failed test; remove the folder."""
        for running in self._running:
            if running.process.poll() is None:
                running.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(_TIMEOUT_SECONDS)
                running.process.kill()
                running.process.wait()
        for pid in self.processes() if Path("/proc/self").exists() else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
