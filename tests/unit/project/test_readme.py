"""README and examples agree with the code."""

import re
from pathlib import Path

import pytest
import yaml

from iidq import __version__
from iidq.queue import job
from iidq.settings import Settings, load_settings, settings_table

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
_EXAMPLE_LINE = re.compile(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


def _known_variables() -> set[str]:
    return {name.upper() for name in Settings.model_fields} - {"RPC_URLS"}


def test_environment_table_is_that_of_the_settings() -> None:
    """The README's table of variables equals the output of `iidq settings`."""
    assert f"\n\n{settings_table()}\n\n" in README


def test_state_drawing_is_that_of_the_code() -> None:
    """The README shows the drawing of `queue/job.py`."""
    drawing = (job.__doc__ or "").split("\n\n")[1]
    assert "queued" in drawing
    assert f"```\n{drawing}\n```" in README


def test_named_files_exist() -> None:
    """Every file and folder named in the README exists."""
    named = set(re.findall(r"`((?:iidq|migrations|tests|\.env)[\w./]*)`", README))
    assert len(named) > 10
    assert {name for name in named if "/" in name or "." in name if not (ROOT / name).exists()} <= {".env"}


def test_examples_are_known_variables() -> None:
    """`.env.example` names every variable once, and no unknown variable."""
    names = [name for name, _ in _EXAMPLE_LINE.findall(EXAMPLE)]
    assert len(names) == len(set(names))
    compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    only_compose = set(re.findall(r"\$\{(\w+)", compose)) - _known_variables()
    assert set(names) == _known_variables() | {"RPC_URLS_8453"} | only_compose


def test_examples_can_be_used_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every line of `.env.example` switched on, the settings are valid, and defaults are the real defaults."""
    for name in _known_variables():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    defaults = load_settings()
    (tmp_path / ".env").write_text(re.sub(r"^#(?=[A-Z])", "", EXAMPLE, flags=re.MULTILINE), encoding="utf-8")
    used = load_settings("database_url", "rpc_url")
    assert used.rpc_urls == {8453: ("https://mainnet.base.org", "https://base.example.org/rpc")}
    for name in Settings.model_fields:
        if getattr(defaults, name) not in (None, (), {}, ""):
            assert getattr(used, name) == getattr(defaults, name), name


def test_changelog_knows_this_version() -> None:
    """The changelog has a section for the package's version."""
    assert re.search(rf"^## \[?{re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_compose_runs_this_version() -> None:
    """The image built by compose has the package's version in its name."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["services"]["api"]["image"] == f"iidq:{__version__}"
