"""Start all of iidq on one machine: Postgres, chain, registry, manifests, API, workers.

A database (``DATABASE_URL``) or chain (``RPC_URL``) of the environment is used; other parts are started here and
stopped in reverse order. API and workers are the same processes as in a real deployment.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from iidq.database.migrate import migrate
from iidq.embedded.development_chain.chain_process import DevelopmentChain, find_anvil
from iidq.embedded.manifests import ManifestServer, serve_manifests
from iidq.embedded.postgres import EmbeddedPostgres
from iidq.embedded.processes import IidqProcess
from iidq.errors import IidqError
from iidq.listening import base_url, listen
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_CHAIN_ID, DEVELOPMENT_KEYS
from iidq.settings import Settings

_READY_TIMEOUT_SECONDS = 60.0


class StackNotReady(IidqError):
    """A part did not become ready in time; the message names the part."""

    code = "embedded.stack"


@dataclass(slots=True)
class Stack:
    """The running parts and their addresses."""

    home: Path
    """Temporary folder of this run."""
    database_url: str
    """URL of the database, embedded or the operator's."""
    rpc_url: str
    """JSON-RPC endpoint of the chain."""
    api_url: str
    """Base URL of the API."""
    manifests: ManifestServer
    """The server of manifests, also an IPFS gateway."""
    registry: str | None = None
    """Address of the deployed registry; None on the operator's chain."""
    processes: list[IidqProcess] = field(default_factory=list)
    """The API and worker processes."""

    @property
    def creator_key(self) -> str:
        """A funded account of the development chain, for registrations."""
        return DEVELOPMENT_KEYS[1]


@asynccontextmanager
async def run_stack(
    settings: Settings,
    *,
    workers: int,
    port: int,
    data_path: Path | None = None,
    logs_to_files: bool = False,
    report: Callable[[str], None] = lambda _step: None,
) -> AsyncIterator[Stack]:
    """Start all parts, call ``report`` before each step; at the end stop all parts and remove all files.

    ``data_path`` keeps the data of the embedded Postgres between runs; without a path the data is temporary.
    """
    async with AsyncExitStack() as stack:
        # First, so that a taken port is an error before Postgres and the chain start.
        listening = stack.enter_context(listen(settings.host, port))
        home = stack.enter_context(_temporary_home())
        chain = None if settings.rpc_url else DevelopmentChain(anvil=find_anvil())
        if chain is not None:
            chain.launch()
            stack.callback(chain.stop)
        postgres = None if settings.database_url else EmbeddedPostgres(data_path or home / "postgres")
        if postgres is not None:
            report("Postgres")
            stack.callback(postgres.close)
            postgres.start()
        database_url = settings.database_url or postgres.url  # type: ignore[union-attr]
        report("migrations")
        await _migrate_to_the_end(database_url, settings.database_schema)

        manifests = await stack.enter_async_context(serve_manifests())
        registry = None
        if chain is not None:
            report("development chain and registry")
            # web3 takes a second to import; meanwhile the chain comes up.
            from iidq.embedded.demo_registry import deploy_registry

            await asyncio.to_thread(chain.wait_until_ready)
            registry = await deploy_registry(chain.url, DEVELOPMENT_KEYS[0])
        rpc_url = settings.rpc_url or chain.url  # type: ignore[union-attr]

        running = Stack(home, database_url, rpc_url, base_url(listening), manifests, registry)
        environment = _environment(settings, running)
        for name, arguments, descriptors in [
            ("api", ["iidq", "serve", "--fd", str(listening.fileno())], [listening.fileno()]),
            *((f"worker-{number}", ["iidq.worker"], []) for number in range(1, workers + 1)),
        ]:
            log_path = home / f"{name}.log" if logs_to_files else None
            process = IidqProcess(name, arguments, environment, log_path=log_path, keep_open=descriptors)
            running.processes.append(process)
            stack.push_async_callback(process.stop)
            process.start()
        # All get SIGTERM at once, so that their drains overlap; the stops above then wait for each.
        for process in running.processes:
            stack.callback(process.ask_to_stop)
        report("API and workers")
        await _until_ready(running)
        yield running


async def _migrate_to_the_end(database_url: str, schema: str) -> None:
    """Migrate in a thread; when cancelled, wait for the thread before Postgres is stopped."""
    migrating = asyncio.create_task(asyncio.to_thread(migrate, database_url, schema))
    try:
        await asyncio.shield(migrating)
    except asyncio.CancelledError:
        await asyncio.wait([migrating])
        raise


@contextmanager
def _temporary_home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="iidq-"))
    try:
        # As root, Postgres runs as an unprivileged user, and must be able to enter this folder.
        home.chmod(0o711)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _environment(settings: Settings, running: Stack) -> dict[str, str]:
    """Return the variables of API and workers; the manifest server is a gateway and an allowed private host."""
    gateways = ",".join((running.manifests.base_url, *settings.ipfs_gateways))
    pages: dict[str, str] = {}
    if running.registry is not None:
        # Public gateways have no manifests of the development chain.
        gateways = running.manifests.base_url
        pages = {"DEFAULT_REGISTRY": f"eip155:{DEVELOPMENT_CHAIN_ID}:{running.registry}"}
    return {
        "DATABASE_URL": running.database_url,
        "DATABASE_SCHEMA": settings.database_schema,
        "RPC_URL": running.rpc_url,
        "IPFS_GATEWAYS": gateways,
        "FETCH_ALLOW_PRIVATE": ",".join((*settings.fetch_allow_private, "127.0.0.1")),
        "HOST": settings.host,
        **pages,
    }


async def _until_ready(running: Stack) -> None:
    async with httpx.AsyncClient(base_url=running.api_url, verify=False, trust_env=False) as client:  # noqa: S501 - plain HTTP
        try:
            async with asyncio.timeout(_READY_TIMEOUT_SECONDS):
                while True:
                    try:
                        if (await client.get("/readyz")).is_success:
                            return
                    except httpx.TransportError:
                        pass
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StackNotReady(f"the API did not become ready within {_READY_TIMEOUT_SECONDS:g} s") from None
