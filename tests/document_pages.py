"""The pages of ``docs/`` for tests: text, code and fenced blocks."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


def blocks(page: str, *languages: str) -> list[str]:
    """Return the fenced blocks of the languages, in order, without the indent of a list."""
    return [textwrap.dedent(match["body"]) for match in _FENCE.finditer(PAGES[page]) if match["language"] in languages]


def statements(page: str) -> list[str]:
    """Return the SQL statements of a page, in order."""
    return [
        statement.strip()
        for block in blocks(page, "sql")
        for statement in re.sub(r"--.*", "", block).split(";")
        if statement.strip()
    ]


def code_of(page: str) -> Iterator[str]:
    """Yield everything set as code: text between backticks, and fenced blocks."""
    text = _FENCE.sub("", PAGES[page])
    yield from re.findall(r"`([^`\n]+)`", text)
    yield from (match["body"] for match in _FENCE.finditer(PAGES[page]))
