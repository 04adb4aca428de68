"""Count the concepts of the code, and print a table: ``make house``.

``--files`` also lists the files of a whole job. ``--no-job`` leaves out the two figures that need a run of ``iidq up``.
"""

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tools.job_trace import files_of_one_job
from tools.language import ROOT, files_below, pronouns_per_100_words

QUEUE_PARTS = ("iidq/queue/", "iidq/database/", "iidq/worker.py")
"""The queue's share of a job: its own package, the connections, the process."""


def modules() -> list[Path]:
    """Return every Python file of ``iidq/``."""
    return [path for path in files_below(ROOT / "iidq") if path.suffix == ".py"]


def repeated_names() -> dict[str, list[str]]:
    """Return each repeated name of a module or class in ``iidq/``, with all places.

    Classes in ``shapes.py`` have the names of the OpenAPI schemas and do not count.
    """
    places: dict[str, list[str]] = {}
    for path in modules():
        where = str(path.relative_to(ROOT))
        if path.stem not in ("__init__", "__main__"):
            places.setdefault(f"module {path.stem}", []).append(where)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and path.name != "shapes.py":
                places.setdefault(f"class {node.name}", []).append(f"{where}:{node.lineno}")
    return {name: found for name, found in places.items() if len(found) > 1}


def folder_sizes() -> Counter[str]:
    """Return the number of Python files of each folder of ``iidq/``."""
    return Counter(str(path.parent.relative_to(ROOT)) for path in modules())


def function_lengths() -> list[int]:
    """Return the lines of each function in ``iidq/``, shortest first."""
    return sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def undocumented_fields() -> tuple[list[str], int]:
    """Return the undocumented public fields, and the number of all public fields.

    Fields are the annotated names of public classes. Documented means: a string below the field, a ``#:`` comment, or
    the name between double backquotes in the docstring of the class.
    """
    missing, count = [], 0
    for path in modules():
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for name, documented in _fields(node, source.splitlines()):
                    count += 1
                    if not documented:
                        missing.append(f"{path.relative_to(ROOT)}: {node.name}.{name}")
    return missing, count


def _fields(node: ast.ClassDef, lines: list[str]) -> Iterator[tuple[str, bool]]:
    text = ast.get_docstring(node) or ""
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            if name.startswith("_") or "ClassVar" in ast.unparse(statement.annotation):
                continue
            string = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            comment = "#:" in lines[statement.lineno - 1] or lines[statement.lineno - 2].strip().startswith("#:")
            yield name, string or comment or f"``{name}``" in text or "description=" in ast.unparse(statement)


def figures(job: list[str] | None) -> list[tuple[str, str, str]]:
    """Return name, value and goal of each figure; ``job`` is the list of files of a whole job."""
    lengths = function_lengths()
    missing, fields = undocumented_fields()
    sizes = folder_sizes().most_common(1)[0]
    rows = []
    if job is not None:
        share = [name for name in job if name.startswith(QUEUE_PARTS)]
        own = [name for name in share if name.startswith(QUEUE_PARTS[0])]
        rows += [
            ("files of one whole job", str(len(job)), "≤ 55"),
            ("of these the queue's: queue/ alone; with database/ and worker.py", f"{len(own)}; {len(share)}", "≤ 10"),
        ]
    return [
        *rows,
        ("largest folder, files", f"{sizes[1]} ({sizes[0]})", "≤ 14"),
        ("iidq/, lines of Python", f"{_lines(modules()):,}", "≤ 21,000"),
        ("functions, lines: median, 95 %, longest", _spread(lengths), "6, 25, 75"),
        ("module and class names that occur twice", str(len(repeated_names())), "0"),
        ("pronouns per 100 words of docstring", f"{pronouns_per_100_words(modules()):.1f}", "≤ 4"),
        ("migrations, lines", f"{_lines(files_below(ROOT / 'migrations')):,}", "≤ 650"),
        ("public fields documented", f"{fields - len(missing)} of {fields}", "all"),
    ]


def _lines(paths: list[Path]) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths if path.suffix in (".py", ".sql"))


def _spread(lengths: list[int]) -> str:
    return f"{statistics.median(lengths):.0f}, {lengths[int(0.95 * len(lengths))]}, {lengths[-1]}"


def main(arguments: list[str]) -> None:
    """Print the table."""
    job = None if "--no-job" in arguments else files_of_one_job()
    if job and "--files" in arguments:
        print(*job, "", sep="\n")
    rows = [("figure", "now", "goal"), *figures(job)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    rows.insert(1, ("-" * widths[0], "-" * widths[1], "-" * widths[2]))
    for row in rows:
        print("|", " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), "|")
    for name, found in repeated_names().items():
        print(f"{name} occurs {len(found)} times: {', '.join(found)}")


if __name__ == "__main__":
    main(sys.argv[1:])
