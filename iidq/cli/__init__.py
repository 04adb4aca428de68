"""The command line. Each command imports what it needs when it runs, so that ``iidq --help`` is quick."""

import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from iidq.cli.operators import queue_commands
from iidq.cli.verification import verify_command
from iidq.errors import IidqError

app = typer.Typer(
    name="iidq",
    help="The verification queue for content provenance: is this file what its creator registered?",
    epilog="Completion for your shell: iidq --install-completion. To look around: iidq up, and in another terminal the "
    "commands that it prints.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
)


@app.command()
def demo() -> None:
    """Show the whole thing at work, in some seconds.

    A genuine file, a warned one, a tampered one, and a proof; everything is started for it and stopped after it.
    """
    from iidq.cli.interruptible import run_interruptible
    from iidq.cli.running.demo import demo as run

    raise typer.Exit(run_interruptible(run()))


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=0, help="worker processes")] = 1,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="where the API listens (PORT)")] = None,
    data: Annotated[Path | None, typer.Option(help="keep the embedded Postgres' data here")] = None,
) -> None:
    """Run all in one, until Ctrl-C.

    An embedded Postgres unless DATABASE_URL is set, a development chain unless RPC_URL is, the API and workers.
    """
    from iidq.cli.interruptible import run_interruptible
    from iidq.cli.running.up import up as run

    # Being stopped is how it ends, not a failure of it.
    raise typer.Exit(run_interruptible(run(workers=workers, port=port, data_path=data), interrupted_code=0))


@app.command()
def serve(
    fd: Annotated[int | None, typer.Option(help="serve on this open socket", hidden=True)] = None,
    ready_fd: Annotated[int | None, typer.Option(help="tell here once requests are served", hidden=True)] = None,
) -> None:
    """Run the API alone, on HOST and PORT.

    In WEB_CONCURRENCY processes. SIGTERM: requests end, then the processes. SIGHUP: several processes are replaced one
    by one, while they serve.
    """
    from iidq.cli.running.serve import serve as run

    raise typer.Exit(run(fd, ready_fd))


@app.command()
def worker(
    concurrency: Annotated[int | None, typer.Option(min=1, help="jobs at a time (WORKER_CONCURRENCY)")] = None,
) -> None:
    """Run one worker process, as `python -m iidq.worker`."""
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


app.add_typer(verify_command.app)
app.add_typer(queue_commands.app)


def main() -> None:
    """Entry point: our own errors end with one line and exit code 2, not with a stack."""
    for stream in (sys.stdout, sys.stderr):
        # A sign that the terminal's encoding lacks becomes a question mark, not the command's end.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except IidqError as error:
        print(f"iidq: {error.message}", file=sys.stderr)
        sys.exit(2)
    except UnicodeEncodeError:
        # Python hands on what is no UTF-8 as halves of surrogate pairs, which neither HTTP nor Postgres can carry.
        print("iidq: an argument or variable holds bytes that are no UTF-8; expected text in UTF-8", file=sys.stderr)
        sys.exit(2)
    except Exception:
        # Python's own exit code 1 would read as "not possible", or as the verdict FAIL.
        traceback.print_exc()
        sys.exit(2)
    finally:
        _let_reader_go()


def _let_reader_go() -> None:
    """A reader that has left (`iidq jobs list | head`) is no fault to be told at the interpreter's end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
