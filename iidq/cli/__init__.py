"""The command line. Each command imports what it needs when it runs, so that ``iidq --help`` is quick."""

import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from iidq.errors import IidqError

Choice = TypeVar("Choice", bound=StrEnum)

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
    """Show the whole thing at work, in some seconds.

    A genuine file, a warned one, a tampered one, and a proof; everything is started for it and stopped after it.
    """
    from iidq.cli.demo import demo as run
    from iidq.cli.interruptible import run_interruptible

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
    from iidq.cli.up import up as run

    # Being stopped is how it ends, not a failure of it.
    raise typer.Exit(run_interruptible(run(workers=workers, port=port, data_path=data), interrupted_code=0))


@app.command()
def serve(
    fd: Annotated[int | None, typer.Option(help="serve on this open socket", hidden=True)] = None,
    ready_fd: Annotated[int | None, typer.Option(help="tell here once requests are served", hidden=True)] = None,
) -> None:
    """Run the API alone, on HOST and PORT, in WEB_CONCURRENCY processes.

    SIGTERM: requests end, then the processes. SIGHUP: several processes are replaced one by one, while they serve.
    """
    from iidq.cli.serve import serve as run

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
    from iidq.migrate import migrate as run
    from iidq.settings import load_settings

    names = run(load_settings("database_url").database_url or "")
    typer.echo("\n".join(f"applied {name}" for name in names) or "nothing to do")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="the file in question")],
    manifest: Annotated[str, typer.Option(help="its manifest: ipfs://CID, http:// or https://")],
    registry: Annotated[str, typer.Option(help="address of the ContentRegistry contract")],
    chain: Annotated[int | None, typer.Option(min=1, help="the registry's chain id, if not the service's own")] = None,
    proof: Annotated[bool, typer.Option("--proof", help="ask for a portable proof as well")] = False,
    upload: Annotated[bool, typer.Option("--upload", help="send the file instead of its hash")] = False,
    server: Annotated[str, typer.Option(envvar="IIDQ_SERVER", help="the service")] = "http://127.0.0.1:3001",
    api_key: Annotated[str | None, typer.Option(envvar="IIDQ_API_KEY", help="the service's key, if it asks")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="seconds to wait for the verdict")] = 300.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write the result or proof here")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the job as JSON")] = False,
) -> None:
    """Ask whether a file is what its creator registered.

    The file is hashed here, and only its hash is sent. Exit code 0: OK. 1: FAIL. 3: WARN. 2: it could not be found out.
    """
    from iidq.cli.verify import Question
    from iidq.cli.verify import verify as run

    question = Question(file, manifest, registry, chain, proof, upload)
    raise typer.Exit(
        run(question, server=server, api_key=api_key, timeout_seconds=timeout, output=output, as_json=as_json)
    )


@app.command("check-proof")
def check_proof(
    file: Annotated[Path, typer.Argument(help="the proof, or the job that carries it, as JSON")],
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Check a proof offline.

    As far as its evidence reaches; what it cannot tell is listed. Exit code 0: nothing contradicts it. 1: something
    does, or its verdict is FAIL. 2: it is no proof.
    """
    from iidq.cli.check_proof import check_proof_file

    raise typer.Exit(check_proof_file(file, as_json=as_json))


@app.command()
def settings() -> None:
    """Print the table of environment variables.

    Name, default and meaning, in Markdown.
    """
    from iidq.settings import settings_table

    typer.echo(settings_table())


jobs = typer.Typer(help="Look at, retry and cancel jobs.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")

AsJson = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]
JobId = Annotated[str, typer.Argument(help="the job's id")]


@jobs.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="queued, processing, completed, failed or cancelled")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="verify or proof")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="how many")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs."""
    from iidq.cli import operate
    from iidq.queue.job import JobStatus, JobType

    chosen_status = None if status is None else _one_of(JobStatus, status, "--status")
    chosen_kind = None if kind is None else _one_of(JobType, kind, "--type")
    raise typer.Exit(operate.list_jobs(status=chosen_status, kind=chosen_kind, limit=limit, as_json=as_json))


def _one_of(kinds: type[Choice], value: str, option: str) -> Choice:
    try:
        return kinds(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r}; expected {', '.join(kinds)}", param_hint=option) from None


@jobs.command()
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Print one job, as HTTP clients see it."""
    from iidq.cli import operate

    raise typer.Exit(operate.show_job(job_id, as_json=as_json))


@jobs.command()
def retry(job_id: JobId) -> None:
    """Put a job that ended back in line."""
    from iidq.cli import operate

    raise typer.Exit(operate.retry_job(job_id))


@jobs.command()
def cancel(job_id: JobId) -> None:
    """End a job that waits or runs."""
    from iidq.cli import operate

    raise typer.Exit(operate.cancel_job(job_id))


@app.command()
def stats(as_json: AsJson = False) -> None:
    """Print how many jobs stand in each state."""
    from iidq.cli import operate

    raise typer.Exit(operate.stats(as_json=as_json))


@app.command()
def pause(reason: Annotated[str | None, typer.Argument(help="shown in queue_health")] = None) -> None:
    """Stop all claims.

    Running jobs go on; `iidq resume` ends the pause.
    """
    from iidq.cli import operate

    raise typer.Exit(operate.pause(reason))


@app.command()
def resume() -> None:
    """Let claims go on after a pause."""
    from iidq.cli import operate

    raise typer.Exit(operate.resume())


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check everything that a job needs.

    Database, migrations, LISTEN, workers, chain, gateways, Redis: what was tried, what came back, what to do.
    Exit code 1: something is broken.
    """
    from iidq.cli.doctor import doctor as run

    raise typer.Exit(run(as_json=as_json))


def main() -> None:
    """Entry point: our own errors end with one line and exit code 2, not with a stack."""
    try:
        app()
    except IidqError as error:
        print(f"iidq: {error.message}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        # Python's own exit code 1 would read as "not possible", or as the verdict FAIL.
        traceback.print_exc()
        sys.exit(2)
