"""Names in the documents exist: variables, paths, metrics, commands, states, codes. And the site builds."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from starlette.routing import Match

from iidq.cli import app
from iidq.provenance.ethereum.registry import UNREGISTERED
from iidq.provenance.manifest import Manifest
from iidq.provenance.verdict import Evidence, judge
from iidq.queue.job import JobStatus, Transition
from iidq.settings import Settings, load_settings
from iidq.web.app import POOL_SIZE, create_app
from iidq.webhooks import deliverer
from tests.document_pages import DOCS, PAGES, ROOT, blocks, code_of

# Names in capitals other than settings: variables of the pages' examples, of other programs, of tests.
_OTHER_VARIABLES = {
    "API", "REGISTRY", "FILE", "MANIFEST", "JOB", "NEW_DATABASE_URL", "BENCH_PG_DSN", "RPC_URLS",
    "MAINPID", "RETRY_BACKOFF", "OTEL_TRACES_SAMPLER", "IIDQ_TEST_REDIS", "IIDQ_TEST_REDIS_SERVER",
    "OTEL_EXPORTER_OTLP_HEADERS", "SSL_CERT_FILE",
}  # fmt: skip
# Of the replaced system, or of other web servers.
_OTHER_PATHS = {"/hook", "/admin/queues", "/ipfs"}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_builds_without_a_broken_link(site: Path) -> None:
    """The site has every page, and no link or anchor between pages is broken (`mkdocs build --strict`)."""
    assert {path.stem for path in site.glob("*.html")} - {"404"} == {"promises", *(Path(name).stem for name in PAGES)}


def test_the_site_lists_every_promise(site: Path) -> None:
    """The page of promises has the docstring of each test, of this one too."""
    page = (site / "promises.html").read_text()
    assert "The page of promises has the docstring of each test, of this one too." in page
    assert page.count("<li>") > 1000


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """No font, script, style or image comes from another host, so the site works offline and reports no reader."""
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"""<(?:script|link|img|iframe|source|video)\b[^>]*?(?:src|href)=["']?([^"'\s>]+)""", page.read_text()
        )
        assert loaded
        assert not [url for url in loaded if re.match(r"(?:\w+:)?//", url)], page
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:\w+:)?//[^)]*", style.read_text()), style


def test_every_page_can_be_found() -> None:
    """Each page is in the site's menu, and each decision in the list of decisions."""
    menu = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]))
    assert menu == {*PAGES, "decisions/index.md", "promises.md"}
    decisions = {path.name for path in (DOCS / "decisions").glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\(([\w-]+\.md)\)", (DOCS / "decisions/index.md").read_text())) == decisions


def test_pictures_have_words(site: Path) -> None:
    """Each image of a page has a description in words."""
    for name, text in PAGES.items():
        assert all(words.strip() for words in re.findall(r"!\[([^\]]*)\]", text)), name


def _variables_of_commands(command: Any) -> set[str]:
    """Return the variables of the commands' options."""
    own = {parameter.envvar for parameter in command.params if isinstance(parameter.envvar, str)}
    return own.union(*map(_variables_of_commands, getattr(command, "commands", {}).values()))


def test_variables_exist() -> None:
    """Each environment variable of a page is a setting, or sets an option of a command."""
    known = {name.upper() for name in Settings.model_fields} | _variables_of_commands(typer.main.get_command(app))
    for name in PAGES:
        for code in code_of(name):
            named = set(re.findall(r"(?:^|\s|\$\{?)([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)\b", code))
            assert named <= known | _OTHER_VARIABLES, (name, code)


def _paths() -> Iterator[tuple[str, str]]:
    for name in PAGES:
        for code in code_of(name):
            for path in re.findall(
                r"(?:\$API|GET |POST |localhost:3001|^)(/(?:api|livez|readyz|metrics)[\w/{}$-]*)", code
            ):
                yield name, path


def test_paths_exist() -> None:
    """Each path of the API on a page is a route."""
    routes = create_app(load_settings(database_url="postgresql://localhost/x", rpc_url="http://localhost:1")).routes
    found = 0
    for page, path in _paths():
        real = re.sub(r"\$JOB|\{jobId\}|…", "01a20ab7-d307-702e-8fe6-dfee29bc1bf7", path).rstrip("/")
        matches = [route.matches({"type": "http", "path": real, "method": "GET"})[0] for route in routes]
        assert any(match is not Match.NONE for match in matches), (page, path)
        found += 1
    assert found > 20


def test_metrics_exist() -> None:
    """Each `iidq_` name in the code of a page is a metric of the guide's table, a role, or an object of the schema."""
    listed = {
        name
        for line in PAGES["monitoring.md"].splitlines()
        if line.count("|") == 4
        for name in re.findall(r"`(iidq_\w+)`", line)
    }
    roles = set(re.findall(r"CREATE ROLE (\w+)", PAGES["sql.md"]))
    objects = {
        name for file in (ROOT / "migrations").glob("*.sql") for name in re.findall(r"\biidq_\w+", file.read_text())
    }
    for name in PAGES:
        named = {metric for code in code_of(name) for metric in re.findall(r"\biidq_\w+", code)}
        assert named <= listed | roles | objects, name


def _commands() -> Iterator[tuple[str, list[str]]]:
    for name in PAGES:
        for code in code_of(name):
            for words in re.findall(r"(?:^|\n|&& |bin/|\" |\()iidq ([a-z][^\n`]*)", code):
                yield name, words.split()


def test_commands_exist() -> None:
    """Each `iidq …` on a page is a command with existing options."""
    found = 0
    for page, words in _commands():
        # typer has a separate click, so isinstance would not work.
        command: Any = typer.main.get_command(app)
        for word in words:
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, (page, words)
            command = command.commands[word]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options | {"--help"}, (
            page,
            words,
        )
        found += 1
    assert found > 15


def test_shell_blocks_are_shell() -> None:
    """Each block marked `sh` is valid shell."""
    for name in PAGES:
        for block in blocks(name, "sh"):
            read = subprocess.run(["sh", "-n"], input=block, capture_output=True, text=True, check=False)
            assert read.returncode == 0, (name, block, read.stderr)


def test_the_drawn_states_are_those_of_the_code() -> None:
    """The drawing shows each state and each transition by name, and has a title and a description."""
    drawing = (DOCS / "images/states.svg").read_text()
    labels = re.findall(r"<text[^>]*>([^<]+)</text>", drawing)
    drawn = {part for label in labels for part in label.split(", ")}
    assert drawn == {*JobStatus, *Transition, "insert"}
    assert "<title" in drawing
    assert "<desc" in drawing


def test_report_codes_are_those_of_the_code() -> None:
    """The table of checks has each code of a verdict, in the same order, and no other."""
    manifest = Manifest("0x" + "0" * 64, "0x", None)
    verdict = judge(Evidence("0x" + "0" * 64, "ipfs://x", manifest, None, None, UNREGISTERED, 1))
    table = PAGES["concepts.md"].partition("## The report")[2].partition("## Errors")[0]
    assert re.findall(r"^\| `([\w.0-9]+)` \|", table, re.MULTILINE) == [check.code for check in verdict.checks]


def test_connections_are_those_of_the_code() -> None:
    """The operations page has the pools' real sizes."""
    loop = (ROOT / "iidq/queue/processing/loop.py").read_text()
    [worker_pool] = re.findall(r"open_database\(settings, pool_size=(\d+)", loop)
    page = PAGES["operations.md"]
    assert f"| API | {POOL_SIZE + 2}: a pool of {POOL_SIZE}," in page
    assert f"| worker | {int(worker_pool) + 2 + deliverer.POOL_SIZE}: a pool of {worker_pool}," in page
    assert (
        f"at least {POOL_SIZE + 2} per API process and {int(worker_pool) + 2 + deliverer.POOL_SIZE} per worker" in page
    )


def test_nothing_of_one_machine() -> None:
    """No page, nor the site's settings, names a folder or host of a developer's machine."""
    for name, text in {**PAGES, "mkdocs.yml": (ROOT / "mkdocs.yml").read_text()}.items():
        assert not re.findall(r"(?<![\w.])/(?:work|root|home|Users|mnt)/|file://|index-url|simple/", text), name
