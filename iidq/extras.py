"""The command that installs an extra of this installation; no package index offers iidq."""

import shlex
import sys
from importlib import metadata


def install_command(extra: str) -> str:
    """Return a shell command that installs the packages of an extra of pyproject.toml, in its versions."""
    try:
        requirements = metadata.requires("iidq") or []
    except metadata.PackageNotFoundError:
        # The sources run without installation, so their folder has the extra.
        return f"{shlex.quote(sys.executable)} -m pip install '.[{extra}]'"
    parts = (requirement.replace('"', "'").partition(";") for requirement in requirements)
    named = [package.strip() for package, _, marker in parts if marker.endswith(f"extra == '{extra}'")]
    return shlex.join([sys.executable, "-m", "pip", "install", *named])
