"""A page of the site with the tests' docstrings: the promises of the project.

``mkdocs.yml`` names the module as a hook, so ``make docs`` writes the page into the site. The page is not committed.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_TESTS = Path(__file__).parents[1] / "tests"
# Code keeps its characters; outside of it these would be read as HTML or as a link.
_MARKUP = re.compile(r"`[^`]*`|[<\[]")
_ESCAPED = {"<": "&lt;", "[": "\\["}
_HEAD = """# Promises

Each line is the docstring of a test, and each test runs before a change is merged. This page is made from `tests/` by
`make docs`.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the files of the site."""
    files.append(File.generated(config, "promises.md", content=page()))
    return files


def page() -> str:
    """Return the page: a heading per folder, a bold line per file, a list item per test."""
    parts = [_HEAD]
    folder = None
    for path in sorted(_TESTS.rglob("test_*.py"), key=lambda path: (path.parent, path.name)):
        if promises := list(_promises(path)):
            if path.parent != folder:
                folder = path.parent
                parts.append(f"## {folder.relative_to(_TESTS.parent)}\n")
            parts.append(f"**{path.stem.removeprefix('test_').replace('_', ' ')}**\n")
            parts.append("\n".join(f"- {promise}" for promise in promises) + "\n")
    return "\n".join(parts)


def _promises(path: Path) -> Iterator[str]:
    """Yield the first paragraph of each test's docstring, on one line, as Markdown."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        if text := ast.get_docstring(node):
            paragraph = " ".join(text.split("\n\n")[0].split())
            yield _MARKUP.sub(lambda found: _ESCAPED.get(found[0], found[0]), paragraph.replace("``", "`"))
