"""Dockerfile and compose.yaml, as far as checkable without a Docker engine."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from iidq.cli import app
from iidq.settings import Settings

ROOT = Path(__file__).parents[3]
PROGRAMS_OF_IMAGES = {
    "postgres": {"pg_isready", "psql", "postgres"},
    "redis": {"redis-server", "redis-cli"},
    "python": {"python", "pip", "sh", "useradd"},
}
"""Programs of the base images, as far as used."""


def _instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def _services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return services


def _commands() -> set[str]:
    return {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel as the Dockerfile does."""
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_carries_what_is_read_at_run_time(wheel: zipfile.ZipFile) -> None:
    """The wheel holds every file of the package and every migration, and nothing of the tests."""
    packed = set(wheel.namelist())
    for folder, inside in ((ROOT / "iidq", "iidq"), (ROOT / "migrations", "iidq/migrations")):
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{inside}/{path.relative_to(folder).as_posix()}" in packed
    for name in ("py.typed", "queue/queries.sql", "embedded/contracts/ContentRegistry.json"):
        assert f"iidq/{name}" in packed
    assert any(fnmatch(name, "iidq/migrations/*.sql") for name in packed)
    assert {name.partition("/")[0].partition("-")[0] for name in packed} == {"iidq"}
    entry_points = next(name for name in packed if name.endswith("entry_points.txt"))
    assert b"iidq = iidq.cli:main" in wheel.read(entry_points)


def test_image_copies_what_exists() -> None:
    """Every COPY has its source: a path in the checkout allowed by .dockerignore, or a named stage."""
    stages = {rest.split(" AS ")[1] for name, rest in _instructions() if name == "FROM" and " AS " in rest}
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    copied = set()
    for name, rest in _instructions():
        if name == "COPY":
            words = rest.split()
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in stages
                continue
            copied |= set(words[:-1])
    assert copied == set(allowed)
    assert all((ROOT / source).exists() for source in copied)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {build["project"]["readme"], *build["project"]["license-files"], "pyproject.toml"} <= copied


def test_image_runs_our_commands_as_nobody_special() -> None:
    """The image's program is the console script, its command exists, its user is not root, and its check compiles."""
    last: dict[str, str] = dict(_instructions())
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    [program] = json.loads(last["ENTRYPOINT"])
    assert program in scripts
    assert set(json.loads(last["CMD"])) <= _commands()
    assert last["USER"] not in ("root", "0")
    check = json.loads(last["HEALTHCHECK"].partition(" CMD ")[2])
    assert check[0] in PROGRAMS_OF_IMAGES["python"]
    compile(check[2], "healthcheck", "exec")


def test_image_builds_with_what_is_there() -> None:
    """Each program of a RUN is in the base image, and the image's Python is at least 3.11."""
    for name, rest in _instructions():
        if name == "FROM":
            assert re.match(r"python:3\.1[1-9]-slim", rest)
        if name == "RUN":
            for part in rest.split("&&"):
                assert shlex.split(part)[0] in PROGRAMS_OF_IMAGES["python"]


def test_services_are_those_that_people_ask_for() -> None:
    """Compose has db, redis, migrate, api and worker; all but the one-time migration have a check and restart."""
    services = _services()
    assert set(services) == {"db", "redis", "migrate", "api", "worker"}
    for name, service in services.items():
        if name == "migrate":
            assert service["restart"].startswith("on-failure")
        else:
            assert service["restart"] == "unless-stopped"
            check = service["healthcheck"]["test"]
            image = service["image"].partition(":")[0]
            assert check[0] == "CMD"
            assert check[1] in PROGRAMS_OF_IMAGES["python" if image == "iidq" else image]


def test_services_start_in_order() -> None:
    """The migration waits for a healthy database, API and worker for the end of the migration."""
    services = _services()
    assert services["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    for name in ("api", "worker"):
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_services_of_ours_share_image_and_environment() -> None:
    """API, worker and migration run the same image with existing commands and known variables."""
    services = _services()
    known = {name.upper() for name in Settings.model_fields}
    for name in ("api", "worker", "migrate"):
        service = services[name]
        assert service["image"] == services["api"]["image"]
        assert service["build"] == "."
        assert set(service["command"]) <= _commands()
        assert set(service["environment"]) <= known
        assert service["environment"]["DATABASE_URL"].startswith("postgresql://iidq:")
        assert service["env_file"] == [{"path": ".env", "required": False}]


def test_worker_can_be_scaled_and_has_time_to_drain() -> None:
    """The worker is tied to no single container, and Docker waits longer than the drain."""
    worker = _services()["worker"]
    assert not {"container_name", "ports", "hostname"} & worker.keys()
    drain_seconds = Settings.model_fields["drain_timeout_seconds"].default
    assert int(worker["stop_grace_period"].removesuffix("s")) > drain_seconds


def test_redis_appends_and_data_has_a_volume() -> None:
    """Redis keeps an append-only file, and both stores keep their data in named volumes."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["services"]["redis"]["command"] == ["redis-server", "--appendonly", "yes"]
    for name in ("db", "redis"):
        [volume] = compose["services"][name]["volumes"]
        assert volume.partition(":")[0] in compose["volumes"]


def test_api_is_published_where_the_documents_say() -> None:
    """The API is on localhost:3001 unless PORT has another port, and on no other address."""
    api = _services()["api"]
    assert api["ports"] == ["127.0.0.1:${PORT:-3001}:3001"]
    assert api["environment"]["PORT"] == "3001"
    assert api["environment"]["HOST"] == "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_commands_of_the_containers_exist(command: str) -> None:
    """The console script has each command of the containers."""
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
