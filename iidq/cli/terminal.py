"""What the commands say: results to standard output, complaints and progress to standard error.

Colour goes to terminals alone and never where ``NO_COLOR`` is set (no-color.org); bars are drawn on terminals alone.
Texts of strangers (errors, file names, messages that came from manifests, servers or rows) pass :func:`printable`.
"""

import shlex
import shutil
import sys
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

NOT_FOUND_OUT: Final = 2
INTERRUPTED: Final = 130

_DESCRIPTION: Final = TextColumn("{task.description:24}", markup=False)


def printable(line: str) -> str:
    """``line`` with nothing in it that could steer the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def say(*parts: str | tuple[str, str]) -> None:
    """Print one line; a part may be ``(text, style)``. Long lines are left to the terminal, so they can be pasted."""
    Console(highlight=False, emoji=False).print(Text.assemble(*parts), soft_wrap=True)


def complain(text: str) -> None:
    """Print one line to standard error."""
    print(f"iidq: {printable(text)}", file=sys.stderr)


def own_command() -> str:
    """Return what to type for this very ``iidq``: its name if a shell finds it by that, else its path."""
    if Path(sys.argv[0]).name != "iidq":
        return f"{shlex.quote(sys.executable)} -m iidq"
    found = shutil.which("iidq")
    return "iidq" if found and Path(found).samefile(sys.argv[0]) else shlex.quote(sys.argv[0])


def byte_bars() -> Progress:
    """Bars for files that are read."""
    return _bars(DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())


def job_bars() -> Progress:
    """Bars for jobs, in per cent."""
    return _bars(TaskProgressColumn(), TimeElapsedColumn())


def count_bars() -> Progress:
    """Bars for things that are counted."""
    return _bars(MofNCompleteColumn(), TimeElapsedColumn())


def _bars(*columns: Any) -> Progress:
    console = Console(stderr=True)
    return Progress(
        _DESCRIPTION, BarColumn(), *columns, console=console, transient=True, disable=not console.is_terminal
    )
