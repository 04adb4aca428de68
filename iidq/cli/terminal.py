"""Output and interruption of the commands: results to standard output, faults and progress to standard error.

Colour goes to terminals alone and never where ``NO_COLOR`` is set (no-color.org). Bars are drawn on terminals alone.
Text from outside (errors, file names, messages of manifests, servers or rows) passes :func:`printable`.
"""

import asyncio
import shlex
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""

_DESCRIPTION: Final = TextColumn("{task.description:24}", markup=False)


def printable(line: str) -> str:
    """Replace every unprintable character, such as the terminal's control codes."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def say(*parts: str | tuple[str, str]) -> None:
    """Print a line; a part may be ``(text, style)``. Long lines are not wrapped, so commands can be pasted."""
    Console(highlight=False, emoji=False).print(Text.assemble(*parts), soft_wrap=True)


def complain(text: str) -> None:
    """Print a line to standard error."""
    print(f"iidq: {printable(text)}", file=sys.stderr)


def own_command() -> str:
    """Return the command for the running ``iidq``: the name if a shell finds the same program, else the path."""
    if Path(sys.argv[0]).name != "iidq":
        return f"{shlex.quote(sys.executable)} -m iidq"
    found = shutil.which("iidq")
    return "iidq" if found and Path(found).samefile(sys.argv[0]) else shlex.quote(sys.argv[0])


def byte_bars() -> Progress:
    """Return progress bars in bytes."""
    return _bars(DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())


def job_bars() -> Progress:
    """Return progress bars in per cent."""
    return _bars(TaskProgressColumn(), TimeElapsedColumn())


def count_bars() -> Progress:
    """Return progress bars in items."""
    return _bars(MofNCompleteColumn(), TimeElapsedColumn())


def _bars(*columns: Any) -> Progress:
    console = Console(stderr=True)
    return Progress(
        _DESCRIPTION, BarColumn(), *columns, console=console, transient=True, disable=not console.is_terminal
    )


def run_interruptible(command: Coroutine[Any, Any, int], *, interrupted_code: int = INTERRUPTED) -> int:
    """Run ``command``, the owner of processes and files, and return the exit code.

    The first SIGINT, SIGTERM or SIGHUP cancels ``command``, and ``interrupted_code`` is returned once the clean-up is
    done. Later signals are ignored, so that no process or file is left behind.
    """

    async def run() -> int:
        task = asyncio.current_task()
        assert task is not None
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            if not interrupted:
                interrupted = True
                task.cancel()

        numbers = [signal.SIGINT, signal.SIGTERM]
        # SIGHUP comes from a closed terminal; under nohup it stays ignored.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, interrupt)
        try:
            return await command
        except asyncio.CancelledError:
            if not interrupted:
                raise
            return interrupted_code

    return asyncio.run(run())
