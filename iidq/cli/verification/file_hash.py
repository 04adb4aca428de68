"""Files hashed on this machine, with a bar."""

from pathlib import Path
from typing import Final

from rich.progress import Progress

from iidq.provenance.digest import ContentDigest

_CHUNK_BYTES: Final = 1 << 20


def hash_file(path: Path, bars: Progress) -> str:
    """The file's content hash; raises OSError.

    Outside of any event loop: Ctrl-C then stops it at once, however long the file is.
    """
    digest = ContentDigest()
    with path.open("rb") as file:
        bar = bars.add_task(f"hashing {_short(path.name)}", total=path.stat().st_size or None)
        try:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                bars.advance(bar, len(chunk))
        finally:
            bars.remove_task(bar)
    return digest.content_hash()


def label_of(path: Path) -> dict[str, str]:
    """The name for a job's ``fileName``: only a label, left out where services would refuse it as an upload's."""
    name = path.name
    return {"fileName": name} if name.isprintable() and ".." not in name and "\\" not in name else {}


def _short(name: str, length: int = 16) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in name)
    return shown if len(shown) <= length else shown[: length - 1] + "…"
