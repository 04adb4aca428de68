"""The command line. Commands import their implementation late, so ``iidq --help`` is quick."""

import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from iidq.cli.operators import queue_commands
from iidq.cli.verification import verify_commands
from iidq.errors import IidqError

app = typer.Typer(
    name="iidq",
    help="The verification queue for content provenance: is this file what its creator registered?",
    epilog="Completion for your shell: iidq --install-completion. To try it: iidq up, and in another terminal the "
    "printed commands.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
)


@app.command()
def demo() -> None:
    """Show all parts at work, in some seconds.

    Verifies a genuine, a warned and a tampered file, and makes a proof. Starts and stops all parts.
    """
    from iidq.cli.running.demo import demo as run
    from iidq.cli.terminal import run_interruptible

    raise typer.Exit(run_interruptible(run()))


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=0, help="worker processes")] = 1,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="port of the API (PORT)")] = None,
    data: Annotated[Path | None, typer.Option(help="folder that keeps the embedded Postgres' data")] = None,
) -> None:
    """Run all parts, until Ctrl-C.

    Starts an embedded Postgres unless DATABASE_URL is set, a development chain unless RPC_URL is, the API and workers.
    """
    from iidq.cli.running.up import up as run
    from iidq.cli.terminal import run_interruptible

    # Ctrl-C is the usual end, not a failure.
    raise typer.Exit(run_interruptible(run(workers=workers, port=port, data_path=data), interrupted_code=0))


@app.command()
def serve(
    fd: Annotated[int | None, typer.Option(help="serve on this open socket", hidden=True)] = None,
    ready_fd: Annotated[
        int | None, typer.Option(help="write a byte here once requests are served", hidden=True)
    ] = None,
) -> None:
    """Run the API alone, on HOST and PORT.

    Runs WEB_CONCURRENCY processes. SIGTERM ends each after the requests in progress. SIGHUP replaces several
    processes in turn, without a gap.
    """
    from iidq.cli.running.serve import serve as run

    raise typer.Exit(run(fd, ready_fd))


@app.command()
def worker(
    concurrency: Annotated[int | None, typer.Option(min=1, help="jobs at a time (WORKER_CONCURRENCY)")] = None,
) -> None:
    """Run a worker process, as `python -m iidq.worker`."""
    from iidq.worker import main as run

    raise typer.Exit(run([] if concurrency is None else ["--concurrency", str(concurrency)]))


@app.command()
def migrate() -> None:
    """Bring the database up to date.

    Safe to run from several hosts at once.
    """
    from iidq.database.migrate import migrate as run
    from iidq.observability import logs
    from iidq.settings import load_settings

    settings = load_settings("database_url")
    logs.configure_logging(settings.log_level, settings.log_format)
    logs.database_parameters_ignored(settings.ignored_parameters)
    names = run(settings.database_url or "", settings.database_schema)
    typer.echo("\n".join(f"applied {name}" for name in names) or "nothing to do")


@app.command()
def settings() -> None:
    """Print the table of environment variables.

    Name, default and meaning, in Markdown.
    """
    from iidq.settings import settings_table

    typer.echo(settings_table())


app.add_typer(verify_commands.app)
app.add_typer(queue_commands.app)


def main() -> None:
    """Run the command line; an :class:`IidqError` ends with a line and exit code 2, not with a stack."""
    for stream in (sys.stdout, sys.stderr):
        # A sign that the terminal's encoding lacks is printed as a question mark.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except IidqError as error:
        print(f"iidq: {error.message}", file=sys.stderr)
        sys.exit(2)
    except UnicodeEncodeError:
        # Python decodes other bytes to surrogates, which neither HTTP nor Postgres can carry.
        print("iidq: an argument or variable is not UTF-8; expected text in UTF-8", file=sys.stderr)
        sys.exit(2)
    except Exception:
        # Python's own exit code 1 would mean "not possible", or the verdict FAIL.
        traceback.print_exc()
        sys.exit(2)
    finally:
        _flush_output()


def _flush_output() -> None:
    """Ignore a closed pipe (`iidq jobs list | head`) at the interpreter's end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
