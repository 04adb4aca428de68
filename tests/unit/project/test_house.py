"""Names, folders and language of the code: rules kept by machine."""

from pathlib import Path

import pytest

from tools.house import folder_sizes, repeated_names
from tools.language import MOST_PRONOUNS, ROOT, banned_words, files_below, packages, pages, pronouns_per_100_words

MOST_FILES = 14
"""Python files in a folder of ``iidq/``."""

PACKAGES = packages()


def test_no_name_occurs_twice() -> None:
    """Each module name and each class name of ``iidq/`` has a single meaning and a single place."""
    assert repeated_names() == {}


def test_no_folder_is_crowded() -> None:
    """No folder of ``iidq/`` has more Python files than MOST_FILES."""
    assert {folder: files for folder, files in folder_sizes().items() if files > MOST_FILES} == {}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_docstrings_name_their_subjects(package: str) -> None:
    """Docstrings of a package have at most four pronouns in 100 words."""
    assert pronouns_per_100_words(PACKAGES[package]) <= MOST_PRONOUNS


@pytest.mark.parametrize(
    "path",
    [
        *(pytest.param(path, id=str(path.relative_to(ROOT))) for path in pages()),
        *(pytest.param(ROOT / folder, id=folder) for folder in ("migrations", "benchmarks", "tools")),
        *(pytest.param(path, id=f"iidq/{path.name}") for path in sorted((ROOT / "iidq").iterdir())),
    ],
)
def test_no_banned_word(path: Path) -> None:
    """Docstrings, comments and documents are written in plain English (CONTRIBUTING.md, "Language")."""
    assert [finding for file in files_below(path) for finding in banned_words(file)] == []


def test_the_language_check_finds_what_it_looks_for(tmp_path: Path) -> None:
    """Prose is read in each kind of file; code, and code between backquotes, is not."""
    samples = {
        "a.py": '"""Whoever asks."""\nx = "who"  # nobody\ny: int = 1\n"""What it is."""\n',
        "b.sql": "-- somebody\nSELECT 'who';\n",
        "c.js": "// told\nconst who = 1;\n",
        "d.md": "It stands `what` here.\n\n```sh\nwho\n```\n\nBeside it.\n",
    }
    for name, text in samples.items():
        (tmp_path / name).write_text(text)
    found = [finding.removeprefix(f"{tmp_path}/") for file in files_below(tmp_path) for finding in banned_words(file)]
    assert sorted(tuple(finding.split(": ")[:2]) for finding in found) == [
        ("a.py:1", "Whoever"),
        ("a.py:2", "nobody"),
        ("a.py:4", "What"),
        ("b.sql:1", "somebody"),
        ("c.js:1", "told"),
        ("d.md:1", "stands"),
        ("d.md:7", "Beside"),
    ]
