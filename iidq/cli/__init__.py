"""The command line. Each command imports what it needs when it runs, so that ``iidq --help`` is quick."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from iidq.errors import IidqError

app = typer.Typer(
    name="iidq",
    help="The verification queue for content provenance: is this file what its creator registered?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
)


@app.command()
def demo() -> None:
    """Show the whole thing at work: a genuine file, a warned one, a tampered one, and a proof. About 10 s."""
    from iidq.cli.demo import demo as run
    from iidq.cli.interruptible import run_interruptible

    raise typer.Exit(run_interruptible(run()))


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=0, help="worker processes")] = 1,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="where the API listens (PORT)")] = None,
    data: Annotated[Path | None, typer.Option(help="keep the embedded Postgres' data here")] = None,
) -> None:
    """All in one: embedded Postgres unless DATABASE_URL, development chain unless RPC_URL, API and workers. Stays."""
    from iidq.cli.interruptible import run_interruptible
    from iidq.cli.up import up as run

    raise typer.Exit(run_interruptible(run(workers=workers, port=port, data_path=data)))


@app.command()
def serve(fd: Annotated[int | None, typer.Option(help="serve on this open socket", hidden=True)] = None) -> None:
    """Run the API alone, on HOST and PORT."""
    from iidq.cli.serve import serve as run

    run(fd)


@app.command()
def worker(
    concurrency: Annotated[int | None, typer.Option(min=1, help="jobs at a time (WORKER_CONCURRENCY)")] = None,
) -> None:
    """Run one worker process, as `python -m iidq.worker`."""
    from iidq.worker import main as run

    raise typer.Exit(run([] if concurrency is None else ["--concurrency", str(concurrency)]))


@app.command()
def migrate() -> None:
    """Bring the database up to date. Safe to run from several hosts at once."""
    from iidq.migrate import migrate as run
    from iidq.settings import load_settings

    names = run(load_settings("database_url").database_url or "")
    typer.echo("\n".join(f"applied {name}" for name in names) or "nothing to do")


@app.command()
def settings() -> None:
    """Print every environment variable, its default and its meaning, as a Markdown table."""
    from iidq.settings import settings_table

    typer.echo(settings_table())


def main() -> None:
    """Entry point: our own errors end with one line and exit code 2, not with a stack."""
    try:
        app()
    except IidqError as error:
        print(f"iidq: {error.message}", file=sys.stderr)
        sys.exit(2)
