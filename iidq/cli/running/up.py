"""``iidq up``: all parts, for a first try, for development and for a small installation."""

import asyncio
import shlex
from pathlib import Path

from rich.console import Console

from iidq.cli.running.samples import publish_sample
from iidq.cli.terminal import own_command
from iidq.embedded.stack import Stack, run_stack
from iidq.observability.logs import configure_logging, database_parameters_ignored
from iidq.settings import Settings, load_settings


async def up(*, workers: int, port: int | None, data_path: Path | None) -> int:
    """Run until interrupted; restart dead processes."""
    settings = load_settings(port=port)
    configure_logging(settings.log_level, settings.log_format)
    database_parameters_ignored(settings.ignored_parameters)
    console = Console(soft_wrap=True, highlight=False)
    async with run_stack(
        settings,
        workers=workers,
        port=settings.port,
        data_path=data_path,
        report=lambda step: console.print(f"starting {step} …", style="dim"),
    ) as stack:
        await _print_introduction(settings, stack, console)
        async with asyncio.TaskGroup() as group:
            for process in stack.processes:
                group.create_task(
                    process.keep_running(
                        lambda name, code: console.print(
                            f"{name} ended with code {code}; starting it again", style="red"
                        )
                    )
                )
    return 0


async def _print_introduction(settings: Settings, stack: Stack, console: Console) -> None:
    # Configured URLs can hold credentials.
    rows = {
        "page": f"{stack.api_url}/",
        "API": stack.api_url,
        "DATABASE_URL": "as configured" if settings.database_url else stack.database_url,
        "RPC_URL": "as configured" if settings.rpc_url else stack.rpc_url,
    }
    variables = {"API": stack.api_url, "IIDQ_SERVER": stack.api_url}
    if not settings.database_url:
        variables["DATABASE_URL"] = stack.database_url
    if not settings.rpc_url:
        variables["RPC_URL"] = stack.rpc_url
    if stack.registry is not None:
        sample = await publish_sample(stack, "song.wav", seed=1)
        rows |= {"registry": stack.registry, "sample file": str(sample.path), "manifest": sample.manifest_uri}
        variables |= {"REGISTRY": stack.registry, "FILE": str(sample.path), "MANIFEST": sample.manifest_uri}
        variables |= {"IIDQ_REGISTRY": stack.registry}
        file, registry, manifest_uri = str(sample.path), stack.registry, sample.manifest_uri
    else:
        file, registry, manifest_uri = "path/to/file", "0x…", "ipfs://…"
    console.print()
    for name, value in rows.items():
        console.print(f"  {name:13} {value}", markup=False)
    assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    console.print(
        f"\nVariables for a second terminal, in one line to paste:\n  export {assignments}\n"
        f"\nTry:\n  curl -X POST {stack.api_url}/api/verification-jobs/verify \\\n"
        f'    -F "file=@{file}" \\\n    -F "registryAddress={registry}" \\\n    -F "manifestURI={manifest_uri}"\n'
        f"  curl {stack.api_url}/api/verification-jobs\n"
        f"{_register_command(stack)}"
        f"  psql {_in_shell(settings, stack)}\n\nCtrl-C stops everything.",
        markup=False,
    )


def _in_shell(settings: Settings, stack: Stack) -> str:
    return '"$DATABASE_URL"' if settings.database_url else f"'{stack.database_url}'"


def _register_command(stack: Stack) -> str:
    """Return the command to register a file on the development chain; empty for a configured chain."""
    if stack.registry is None:
        return ""
    return (
        f"  {own_command()} register path/to/file --rpc-url {stack.rpc_url} --registry {stack.registry} \\\n"
        f"    --publish {stack.manifests.base_url} --server {stack.api_url}\n"
    )
