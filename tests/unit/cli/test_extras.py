"""Commands for installing an extra."""

import re
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from iidq.extras import install_command

ROOT = Path(__file__).parents[3]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def parts(requirement: str) -> tuple[str, frozenset[str]]:
    """Return a requirement's package with extras, and its bounds."""
    name = re.match(r"[\w.-]+(\[[\w,]+\])?", requirement)
    assert name is not None
    return name[0], frozenset(requirement[name.end() :].split(","))


@pytest.mark.parametrize("extra", ["embedded", "redis", "otel"])
def test_the_command_names_published_packages(extra: str) -> None:
    """The command installs the extra's packages within their bounds, into the Python of iidq."""
    program, *words = shlex.split(install_command(extra))
    assert (program, words[:3]) == (sys.executable, ["-m", "pip", "install"])
    assert {parts(word) for word in words[3:]} == {parts(requirement) for requirement in EXTRAS[extra]}


def test_sources_that_were_not_installed_name_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an installation the command names the extra of the sources' own folder."""

    def requires(_: str) -> list[str]:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", requires)
    assert install_command("redis").endswith(" -m pip install '.[redis]'")


def test_no_text_installs_iidq_by_name() -> None:
    """No document or message advertises an installation of iidq by name: no package of the name is published."""
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "iidq").rglob("*.py")]
    texts += [*(ROOT / "iidq").rglob("*.js"), *(ROOT / "iidq").rglob("*.html")]
    advertising = re.compile(r"pip install [^\n`]*\biidq\b(?![/.])|\biidq\[")
    assert [path.name for path in texts if advertising.search(path.read_text())] == []
