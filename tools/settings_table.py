"""Write the table of `iidq settings` into README.md: ``python -m tools.settings_table``."""

import re

from iidq.settings import settings_table
from tools.language import ROOT


def main() -> None:
    """Replace the table that begins with the column ``variable``."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head = settings_table().splitlines()[0]
    readme.write_text(
        re.sub(rf"^{re.escape(head)}\n(\|.*\n)+", lambda _old: f"{settings_table()}\n", text, flags=re.MULTILINE),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
