"""A development chain of one's own: py-evm behind an Ethereum JSON-RPC endpoint on 127.0.0.1, as its own process.

``python -m iidq.embedded.development_chain.chain_process --port 0 --chain-id 31337`` prints its URL when it is ready
and runs until SIGTERM or SIGINT. State is in memory. :class:`DevelopmentChain` starts and stops that process.
"""

import argparse
import asyncio
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import IO, Self

from iidq.errors import IidqError, SettingsFault
from iidq.extras import install_command
from iidq.process import die_with_parent

DEVELOPMENT_CHAIN_ID = 31337

_START_TIMEOUT_SECONDS = 60
_STOP_TIMEOUT_SECONDS = 10
_SHOWN_LOG_BYTES = 2000


class ChainNotStarted(IidqError):
    """The development chain's process did not come up; the message carries the end of what it said."""

    code = "embedded.chain"


class DevelopmentChain:
    """The process of one development chain, which ends with ours, however that ends.

    ``genesis_timestamp`` (Unix seconds) sets the chain's clock; by default it shows the real time. ``port`` 0 is any
    free one. A chain that was stopped may be started again, as a new and empty one.
    """

    def __init__(
        self, *, port: int = 0, chain_id: int = DEVELOPMENT_CHAIN_ID, genesis_timestamp: int | None = None
    ) -> None:
        self.chain_id = chain_id
        self._arguments = ["--port", str(port), "--chain-id", str(chain_id)]
        if genesis_timestamp is not None:
            self._arguments += ["--genesis-timestamp", str(genesis_timestamp)]
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
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
        """Start the process and return at once; :meth:`wait_until_ready` is the other half.

        Call it from a thread that lives as long as the process: the chain dies with that thread.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            # -P: no file in the present folder may stand in for a module of ours.
            [sys.executable, "-P", "-m", "iidq.embedded.development_chain.chain_process", *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Ctrl-C in the terminal is for us; we then stop the chain in order.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )

    def wait_until_ready(self) -> None:
        """Wait until the endpoint accepts connections; raises :class:`ChainNotStarted`."""
        line = self._first_line()
        if not line.endswith(b"\n"):
            said = self._log_end()
            self.stop()
            raise ChainNotStarted(f"the development chain did not come up:\n{said}")
        self._url = line.decode().strip()

    def start(self) -> None:
        """Launch it and wait until it is ready."""
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process; nothing to do if it has ended."""
        process, self._process, self._url = self._process, None, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_STOP_TIMEOUT_SECONDS)
            if process.stdout:
                process.stdout.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _first_line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n") and selector.select(deadline - time.monotonic()):
                piece = os.read(self._process.stdout.fileno(), 4096)
                if not piece:
                    break
                line += piece
        return line

    def _log_end(self) -> str:
        assert self._log is not None
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _SHOWN_LOG_BYTES))
        return self._log.read().decode(errors="replace").strip() or "(it said nothing)"


def main() -> None:
    """The command line of the chain's own process."""
    parser = argparse.ArgumentParser(
        prog="python -m iidq.embedded.development_chain.chain_process", description="A development chain."
    )
    parser.add_argument("--port", type=int, default=0, help="0 = any free port")
    parser.add_argument("--chain-id", type=int, default=DEVELOPMENT_CHAIN_ID)
    parser.add_argument("--genesis-timestamp", type=int, help="Unix seconds; default: now")
    arguments = parser.parse_args()
    try:
        from iidq.embedded.development_chain.chain_server import serve_chain
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"set RPC_URL, or install the embedded parts ({error}): {install_command('embedded')}"
        ) from None
    try:
        asyncio.run(
            serve_chain(port=arguments.port, chain_id=arguments.chain_id, genesis_timestamp=arguments.genesis_timestamp)
        )
    except SettingsFault as fault:
        raise SystemExit(fault.message) from None


if __name__ == "__main__":
    main()
