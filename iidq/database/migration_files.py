"""The files of ``migrations/``, as they are shipped."""

import contextlib
import tempfile
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

from iidq.database.queries import DEFAULT_SCHEMA, in_schema


@contextlib.contextmanager
def migrations_folder(schema: str = DEFAULT_SCHEMA) -> Iterator[Path]:
    """``migrations/`` inside the installed wheel, or beside the package in a checkout; rewritten for another schema."""
    with as_file(files("iidq")) as package, contextlib.ExitStack() as temporary:
        inside = package / "migrations"
        folder = inside if inside.is_dir() else package.parent / "migrations"
        if schema != DEFAULT_SCHEMA:
            rewritten = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="iidq-")))
            for path in folder.glob("*.sql"):
                (rewritten / path.name).write_bytes(in_schema(path.read_bytes(), schema))
            folder = rewritten
        yield folder


def shipped_migrations() -> list[str]:
    """Names of the migrations that belong to this version, in their order."""
    with migrations_folder() as folder:
        return sorted(path.stem for path in folder.glob("*.sql") if not path.stem.endswith(".rollback"))
