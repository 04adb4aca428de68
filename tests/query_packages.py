"""The packages of iidq with a ``queries.sql``."""

from pathlib import Path

import iidq

_ROOT = Path(iidq.__file__).parent
QUERY_PACKAGES = sorted(
    ".".join(("iidq", *path.parent.relative_to(_ROOT).parts)) for path in _ROOT.rglob("queries.sql")
)
