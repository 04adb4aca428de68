"""The command that installs an extra of this very installation; no index offers iidq by name."""

import shlex
import sys
from importlib import metadata


def install_command(extra: str) -> str:
    """Return a shell command that installs what the extra of pyproject.toml names, in the versions it names."""
    try:
        requirements = metadata.requires("iidq") or []
    except metadata.PackageNotFoundError:
        # The sources run without having been installed, so the extra is at hand in their folder.
        return f"{shlex.quote(sys.executable)} -m pip install '.[{extra}]'"
    parts = (requirement.replace('"', "'").partition(";") for requirement in requirements)
    named = [package.strip() for package, _, marker in parts if marker.endswith(f"extra == '{extra}'")]
    return shlex.join([sys.executable, "-m", "pip", "install", *named])
