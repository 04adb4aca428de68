"""Measure the memory of a browser. Linux only."""

import os
from pathlib import Path


def browser_bytes() -> int:
    """Return the bytes of all Chromium processes started by this process; each shared page counts once."""
    parents = {int(folder.name): _parent(folder) for folder in Path("/proc").glob("[0-9]*")}
    return sum(_proportional_bytes(pid) for pid in parents if _descends(pid, parents))


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid and pid != os.getpid():
        pid = parents.get(pid, 0)
    return pid != 0


def _parent(folder: Path) -> int:
    try:
        # The name in parentheses may contain spaces.
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _proportional_bytes(pid: int) -> int:
    try:
        if b"chrom" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return 0
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
