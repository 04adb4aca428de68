"""Start and stop a development chain: ``anvil`` where installed, else py-evm (:mod:`.chain_server`).

Both keep their state in memory, fund the same ten accounts, and print ``Listening on <host>:<port>`` once ready.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from types import TracebackType
from typing import IO, Self

from iidq.errors import IidqError, SettingsFault
from iidq.extras import install_command
from iidq.process import die_with_parent
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_CHAIN_ID

_START_TIMEOUT_SECONDS = 60
_STOP_TIMEOUT_SECONDS = 10
_SHOWN_OUTPUT_BYTES = 2000
_LISTENING = re.compile(rb"Listening on ([\w.]+:\d+)")


class ChainNotStarted(IidqError):
    """The chain's process did not come up; the message carries the end of its output."""

    code = "embedded.chain"


def find_anvil() -> str | None:
    """Return the anvil of ``ANVIL`` (a path, or a name on PATH), else the anvil on PATH, else None.

    Raises :class:`SettingsFault` if ``ANVIL`` names no program.
    """
    named = os.environ.get("ANVIL")
    found = shutil.which(named or "anvil")
    if named and found is None:
        raise SettingsFault(f"ANVIL={named}: expected the path of an anvil program, or its name on PATH")
    return found


class DevelopmentChain:
    """The process of a chain, which ends with the present process, even after SIGKILL.

    ``anvil`` is a program's path, None runs py-evm. ``port`` 0 takes any free one. A stopped chain may be started
    again, as a new and empty one.
    """

    def __init__(self, *, anvil: str | None = None, port: int = 0, chain_id: int = DEVELOPMENT_CHAIN_ID) -> None:
        self._anvil = anvil
        self._arguments = ["--port", str(port), "--chain-id", str(chain_id)]
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._listening_or_ended = threading.Event()
        self._output = b""
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The JSON-RPC endpoint; raises :class:`ChainNotStarted` before it is ready."""
        if self._url is None:
            raise ChainNotStarted("the development chain is not running")
        return self._url

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def launch(self) -> None:
        """Start the process without a wait; call :meth:`wait_until_ready` next.

        The chain dies with the calling thread: use a thread that lives as long as the process.
        """
        if self._anvil is None and importlib.util.find_spec("eth") is None:
            raise ChainNotStarted(f"set RPC_URL or ANVIL, or install the embedded parts: {install_command('embedded')}")
        self._output = b""
        self._listening_or_ended.clear()
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is for the present process, which then stops the chain in order.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        self._reader = threading.Thread(target=self._read_output, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def wait_until_ready(self) -> None:
        """Wait until the endpoint accepts connections; raises :class:`ChainNotStarted`."""
        self._listening_or_ended.wait(_START_TIMEOUT_SECONDS)
        if self._url is None:
            self.stop()
            output = self._output[-_SHOWN_OUTPUT_BYTES:].decode(errors="replace").strip()
            raise ChainNotStarted(f"the development chain did not come up:\n{output or '(no output)'}")

    def start(self) -> None:
        """Launch the chain and wait until the endpoint is ready."""
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process, if it runs."""
        process, self._process = self._process, None
        if process is not None and self._reader is not None and process.stdout is not None:
            self._end(process, signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self._end(process, signal.SIGKILL)
                process.wait(_STOP_TIMEOUT_SECONDS)
            self._reader.join(_STOP_TIMEOUT_SECONDS)
            process.stdout.close()
        self._url = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        if self._anvil is None:
            # -P: no file in the present folder may be imported in place of a module of iidq.
            return [sys.executable, "-P", "-m", "iidq.embedded.development_chain.chain_server", *self._arguments]
        # One slot per epoch: otherwise anvil's safe and finalized blocks stay block 0.
        return [self._anvil, "--host", "127.0.0.1", "--slots-in-an-epoch", "1", *self._arguments]

    def _read_output(self, stream: IO[bytes]) -> None:
        """Find the URL, then discard the rest: anvil prints every call, and a full pipe would stop it."""
        for line in stream:
            if self._url is None:
                self._output += line
                if listening := _LISTENING.search(line):
                    self._url = f"http://{listening[1].decode()}"
                    self._listening_or_ended.set()
        self._listening_or_ended.set()

    @staticmethod
    def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        # npm's anvil is a script that runs the real one: both are in the session that launch() started.
        if process.poll() is None:
            os.killpg(process.pid, how)
