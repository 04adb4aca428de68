"""Check the language of docstrings, comments and documents: ``python -m tools.language [PATH …]``.

Two rules are kept. Banned words mark sentences without a noun that exists in the code. Pronouns per 100 words of
docstring show the same by count: four is the limit for each package of ``iidq/``.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_PRONOUNS = 4.0
"""Pronouns per 100 words of docstring, per package of ``iidq/``."""

PRONOUNS = frozenset(
    re.findall(
        r"\w+",
        "i me my we us our you your he him his she her it its itself they them their theirs themselves who whom whose "
        "whoever what whatever nobody somebody anybody everybody one ones this that these those",
    )
)
BANNED = re.compile(
    r"\b(who|whom|whose|whoever|nobody|somebody|anybody|everybody|told|tells?|stands?|stood|beside|anew|"
    r"all the same|what)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_CODE_OF_PAGE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]+`|\]\([^)\s]*\)", re.MULTILINE | re.DOTALL)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def files_below(path: Path) -> list[Path]:
    """Return the file itself, or every file of the folder without caches and vendored code."""
    if path.is_file():
        return [path]
    return [
        file for file in sorted(path.rglob("*")) if file.is_file() and not {"__pycache__", "vendor"} & {*file.parts}
    ]


def docstrings(source: str) -> Iterator[str]:
    """Yield the docstring of the module and of each class and function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
            yield text


def pronouns_per_100_words(paths: Iterable[Path]) -> float:
    """Return pronouns per 100 words in the docstrings of the Python files; 0.0 without any word."""
    words = [
        word.lower()
        for path in paths
        if path.suffix == ".py"
        for text in docstrings(path.read_text(encoding="utf-8"))
        for word in _WORD.findall(text)
    ]
    return 100 * sum(word in PRONOUNS for word in words) / len(words) if words else 0.0


def banned_words(path: Path) -> Iterator[str]:
    """Yield ``path:line: word: text`` for each banned word in the file's prose."""
    for number, prose in _prose(path):
        for offset, line in enumerate(prose.splitlines()):
            for found in BANNED.finditer(line):
                yield f"{path}:{number + offset}: {found[0]}: {line.strip()[:100]}"


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each piece of prose: docstrings, comments, a page without its code."""
    text = path.read_text(encoding="utf-8") if path.suffix in _READERS else ""
    yield from _READERS[path.suffix](text) if text else ()


def _python(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        # Docstrings of modules, classes and functions, and those below a field.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _sql(source: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(source.splitlines(), 1):
        yield number, line.partition("--")[2]


def _script(source: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(source.splitlines(), 1):
        if "//" in line or line.strip().startswith(("*", "/*")):
            yield number, line


def _page(text: str) -> Iterator[tuple[int, str]]:
    yield 1, _CODE_OF_PAGE.sub(lambda code: "\n" * code[0].count("\n"), text)


_READERS = {".py": _python, ".sql": _sql, ".js": _script, ".css": _script, ".md": _page}


def packages() -> dict[str, list[Path]]:
    """Return the Python files of each package of ``iidq/`` by name; ``iidq`` has the top-level modules."""
    found: dict[str, list[Path]] = {}
    for path in files_below(ROOT / "iidq"):
        if path.suffix == ".py":
            parts = path.relative_to(ROOT / "iidq").parts
            found.setdefault("iidq" if len(parts) == 1 else f"iidq/{parts[0]}", []).append(path)
    return found


def main(arguments: list[str]) -> int:
    """Print each banned word, and pronouns per 100 words; return 1 if a rule is broken."""
    named = [Path(argument) for argument in arguments]
    broken = 0
    for root in named or [ROOT / "iidq", ROOT / "migrations", *pages()]:
        for path in files_below(root):
            for finding in banned_words(path):
                print(finding)
                broken = 1
    groups = {str(path): files_below(path) for path in named} or packages()
    for name, files in groups.items():
        if share := pronouns_per_100_words(files):
            print(f"{name}: {share:.1f} pronouns per 100 words of docstring")
            broken |= share > MOST_PRONOUNS and not named
    return broken


def pages() -> list[Path]:
    """Return the documents at the top of the repository, and the pages of ``docs/``."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "tests" / "README.md"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
