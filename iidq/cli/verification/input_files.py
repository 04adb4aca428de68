"""The files of `iidq verify`: names, manifest URIs and hashes."""

import csv
import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from rich.progress import Progress

from iidq.notation import CHAIN_ACCOUNT
from iidq.provenance.digest import ContentDigest

MAX_LIST_BYTES: Final = 64 << 20
_CHUNK_BYTES: Final = 1 << 20
_GLOB: Final = re.compile(r"[*?\[]")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS: Final = ("name", "stem", "path", "hash")


class UnusableArguments(Exception):
    """The arguments cannot be used; the text names the argument and the expected form."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to verify."""

    path: Path
    """Where the file is; it may be missing."""
    shown: str
    """The file as the user wrote it, for messages."""
    below: str
    """Path within the folder that was searched, for the placeholder ``{path}``."""


def chain_account(text: str) -> tuple[int | None, str]:
    """Return chain id (None if absent) and address of ``0x…`` or ``eip155:<chainId>:0x…`` (CAIP-10)."""
    if (found := CHAIN_ACCOUNT.fullmatch(text)) is not None:
        return int(found[1]) if found[1] else None, found[2]
    raise UnusableArguments(f"--registry {text} cannot be used; expected 0x and 40 hex digits, or eip155:<chainId>:0x…")


class ManifestTemplate:
    """A manifest URI with placeholders for the file."""

    def __init__(self, template: str) -> None:
        unknown = [name for name in _PLACEHOLDER.findall(template) if name not in _PLACEHOLDERS]
        if unknown:
            expected = ", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
            raise UnusableArguments(f"--manifest has a placeholder {{{unknown[0]}}}; expected {expected}")
        self._template = template

    def uri_for(self, file: InputFile, content_hash: str) -> str:
        """Return the manifest URI of ``file``; names are percent-encoded."""
        values = {
            "name": quote(file.path.name, safe=""),
            "stem": quote(file.path.stem, safe=""),
            "path": quote(file.below),
            "hash": content_hash,
        }
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self._template)


class ManifestList:
    """A CSV file with the columns file and manifest URI; relative paths start at the list's folder."""

    def __init__(self, list_path: Path) -> None:
        self._list_path = list_path
        self._uris: dict[Path, str] = {}
        self.files: list[InputFile] = []
        """The listed files, in order."""
        if list_path.stat().st_size > MAX_LIST_BYTES:
            raise UnusableArguments(f"{list_path} has more than {MAX_LIST_BYTES >> 20} MiB; expected a list of files")
        try:
            # Spreadsheets write a byte order mark before the first name.
            with list_path.open(encoding="utf-8-sig", newline="") as file:
                self._read(csv.reader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UnusableArguments(f"{list_path} is not CSV in UTF-8 ({error})") from None
        if not self.files:
            raise UnusableArguments(f"{list_path} names no file; expected lines like photo.jpg,ipfs://CID")

    def _read(self, rows: Iterable[Sequence[str]]) -> None:
        for number, row in enumerate(rows, start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells) or (number == 1 and [cell.lower() for cell in cells] == ["file", "manifest"]):
                continue
            if len(cells) != 2 or not all(cells):
                raise UnusableArguments(f"{self._list_path}, line {number}: expected file,manifest")
            path = self._list_path.parent / cells[0]
            self._uris[path.resolve()] = cells[1]
            self.files.append(InputFile(path, cells[0], cells[0]))

    def uri_for(self, file: InputFile, content_hash: str) -> str:
        """Return the listed manifest URI of ``file``; raise :class:`UnusableArguments` for an unlisted file."""
        uri = self._uris.get(file.path.resolve())
        if uri is None:
            raise UnusableArguments(f"{self._list_path} has no line for {file.shown}")
        return uri


def is_glob(text: str) -> bool:
    """Return whether ``text`` is an unexpanded pattern."""
    return bool(_GLOB.search(text)) and not Path(text).exists()


def find_files(arguments: Sequence[str], *, recursive: bool) -> list[InputFile]:
    """Return the files named by the arguments, each once, files of a folder sorted by name.

    Missing files are included, so that each gets a fault. Raise :class:`UnusableArguments` for a pattern or
    folder without files.
    """
    found: dict[Path, InputFile] = {}
    for argument in arguments:
        files = list(_named_by(argument, recursive=recursive))
        if not files:
            raise UnusableArguments(f"{argument}: there is no file")
        for file in files:
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def _named_by(argument: str, *, recursive: bool) -> Iterable[InputFile]:
    if is_glob(argument):
        paths = sorted(Path(match) for match in glob.iglob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        return [InputFile(path, str(path), str(path)) for path in paths if path.is_file()]
    path = Path(argument)
    if recursive and path.is_dir():
        return _inside(path)
    # An absolute path makes no sense in a URI.
    return [InputFile(path, argument, path.name if path.is_absolute() else argument)]


def _inside(folder: Path) -> Iterable[InputFile]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            # Hidden files are no content, nor are the manifests that `iidq register` writes next to a file.
            if path.is_file() and not name.startswith(".") and not name.endswith(".manifest.json"):
                yield InputFile(path, str(path), path.relative_to(folder).as_posix())


def hash_file(path: Path, bars: Progress) -> str:
    """Return the content hash of a file; raise OSError.

    Call outside of event loops, so that Ctrl-C interrupts at once.
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


def file_name_field(path: Path) -> dict[str, str]:
    """Return the job's field ``fileName``; no field for a name refused by services."""
    name = path.name
    return {"fileName": name} if name.isprintable() and ".." not in name and "\\" not in name else {}


def _short(name: str, length: int = 16) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in name)
    return shown if len(shown) <= length else shown[: length - 1] + "…"
