"""Which files are asked about, and what the manifest of each is: `iidq verify`'s arguments, made plain."""

import csv
import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from iidq.notation import CHAIN_ACCOUNT

MAX_LIST_BYTES: Final = 64 << 20
_GLOB: Final = re.compile(r"[*?\[]")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS: Final = ("name", "stem", "path", "hash")


class UnusableArguments(Exception):
    """The arguments name nothing that can be asked; the text says which, and what was expected."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file in question. ``shown`` is how its user knows it, ``below`` its path within the folder it was found in."""

    path: Path
    shown: str
    below: str


def chain_account(text: str) -> tuple[int | None, str]:
    """The chain, if it is named, and the address in ``0x…`` or ``eip155:<chainId>:0x…`` (CAIP-10)."""
    if (found := CHAIN_ACCOUNT.fullmatch(text)) is not None:
        return int(found[1]) if found[1] else None, found[2]
    raise UnusableArguments(f"--registry {text} cannot be used; expected 0x and 40 hex digits, or eip155:<chainId>:0x…")


class ManifestTemplate:
    """One manifest URI for all files, or one for each, by the placeholders in it."""

    def __init__(self, template: str) -> None:
        unknown = [name for name in _PLACEHOLDER.findall(template) if name not in _PLACEHOLDERS]
        if unknown:
            expected = ", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
            raise UnusableArguments(f"--manifest has a placeholder {{{unknown[0]}}}; expected {expected}")
        self._template = template

    def uri_for(self, candidate: Candidate, content_hash: str) -> str:
        """The manifest URI of this file; what comes from its name is percent-encoded."""
        values = {
            "name": quote(candidate.path.name, safe=""),
            "stem": quote(candidate.path.stem, safe=""),
            "path": quote(candidate.below),
            "hash": content_hash,
        }
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self._template)


class ManifestList:
    """A CSV file of two columns, file and manifest URI; relative paths begin where the list lies."""

    def __init__(self, list_path: Path) -> None:
        self._list_path = list_path
        self._uris: dict[Path, str] = {}
        self.candidates: list[Candidate] = []
        if list_path.stat().st_size > MAX_LIST_BYTES:
            raise UnusableArguments(f"{list_path} has more than {MAX_LIST_BYTES >> 20} MiB; expected a list of files")
        try:
            # Spreadsheets put a byte order mark before the first name.
            with list_path.open(encoding="utf-8-sig", newline="") as file:
                self._read(csv.reader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UnusableArguments(f"{list_path} is not CSV in UTF-8 ({error})") from None
        if not self.candidates:
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
            self.candidates.append(Candidate(path, cells[0], cells[0]))

    def uri_for(self, candidate: Candidate, content_hash: str) -> str:
        """The manifest URI that the list gives this file; raises :class:`UnusableArguments` if it is not listed."""
        uri = self._uris.get(candidate.path.resolve())
        if uri is None:
            raise UnusableArguments(f"{self._list_path} has no line for {candidate.shown}")
        return uri


def is_glob(text: str) -> bool:
    """Whether a shell that did not expand ``text`` left that to us."""
    return bool(_GLOB.search(text)) and not Path(text).exists()


def find_candidates(arguments: Sequence[str], *, recursive: bool) -> list[Candidate]:
    """The files that these arguments name, each once, folders in the order of their names.

    Raises :class:`UnusableArguments` for a pattern or folder without files. A missing file is a candidate all the
    same: who names it is told in its place.
    """
    found: dict[Path, Candidate] = {}
    for argument in arguments:
        candidates = list(_named_by(argument, recursive=recursive))
        if not candidates:
            raise UnusableArguments(f"{argument}: there is no file")
        for candidate in candidates:
            found.setdefault(candidate.path.resolve(), candidate)
    return list(found.values())


def _named_by(argument: str, *, recursive: bool) -> Iterable[Candidate]:
    if is_glob(argument):
        paths = sorted(Path(match) for match in glob.iglob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        return [Candidate(path, str(path), str(path)) for path in paths if path.is_file()]
    path = Path(argument)
    if recursive and path.is_dir():
        return _inside(path)
    # An absolute path would make no sense in a URI.
    return [Candidate(path, argument, path.name if path.is_absolute() else argument)]


def _inside(folder: Path) -> Iterable[Candidate]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            # Hidden files are no content, and neither are the manifests that `iidq register` leaves beside it.
            if path.is_file() and not name.startswith(".") and not name.endswith(".manifest.json"):
                yield Candidate(path, str(path), path.relative_to(folder).as_posix())
