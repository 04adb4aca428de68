"""Declarations of the operators' commands. Implementations are imported late."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from iidq.cli.service_options import ApiKey

if TYPE_CHECKING:
    from iidq.cli.operators.operate import Target
    from iidq.cli.operators.queue_access import JobFilter

Choice = TypeVar("Choice", bound=StrEnum)

app = typer.Typer(rich_markup_mode=None)
jobs = typer.Typer(help="List, show, watch, retry and cancel jobs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(jobs, name="jobs")

_WHERE = "The queue is that of --server; without it that of DATABASE_URL; without both, of the service on this machine."

Server = Annotated[
    str | None,
    typer.Option(envvar="IIDQ_SERVER", help="use this service instead of DATABASE_URL, such as https://host:port"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for scripts")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="the job's id")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="the jobs' ids")]
Status = Annotated[
    str | None,
    typer.Option(
        help="queued, processing, completed, failed or cancelled",
        autocompletion=lambda: ["queued", "processing", "completed", "failed", "cancelled"],
    ),
]
Kind = Annotated[str | None, typer.Option("--type", help="verify or proof", autocompletion=lambda: ["verify", "proof"])]
Interval = Annotated[float, typer.Option(min=0.2, max=3600, help="seconds between two updates")]


def _target(server: str | None, api_key: str | None) -> "Target":
    from iidq.cli.operators.operate import Target

    return Target(server, api_key)


def _filter(status: str | None, kind: str | None, content_hash: str | None = None) -> "JobFilter":
    from iidq.cli.operators.queue_access import JobFilter
    from iidq.queue.job import JobStatus, JobType

    return JobFilter(
        _one_of(JobStatus, status, "--status"),
        _one_of(JobType, kind, "--type"),
        content_hash and content_hash.lower(),
    )


def _one_of(kinds: type[Choice], value: str | None, option: str) -> Choice | None:
    try:
        return None if value is None else kinds(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r}; expected {', '.join(kinds)}", param_hint=option) from None


def _cursor(text: str | None) -> str | None:
    from iidq.queue.read.paging import Cursor

    try:
        return text and Cursor.decode(text).encode()
    except ValueError:
        raise typer.BadParameter("expected the cursor that an earlier search printed", param_hint="--cursor") from None


@jobs.command(
    "list",
    epilog=f"""Examples:

\b
  iidq jobs list --status failed --limit 100
  iidq jobs list --hash 0x… --json

{_WHERE}""",
)
def list_jobs(
    status: Status = None,
    kind: Kind = None,
    content_hash: Annotated[str | None, typer.Option("--hash", help="only jobs about this content hash")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="number of jobs")] = 20,
    cursor: Annotated[str | None, typer.Option(help="continue after an earlier search")] = None,
    server: Server = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs."""
    from iidq.cli.operators import operate

    wanted = _filter(status, kind, content_hash)
    target = _target(server, api_key)
    raise typer.Exit(operate.list_jobs(target, wanted, limit=limit, cursor=_cursor(cursor), as_json=as_json))


@jobs.command(epilog=_WHERE)
def show(job_id: JobId, server: Server = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Print a job as HTTP clients get it."""
    from iidq.cli.operators import operate

    raise typer.Exit(operate.show_job(_target(server, api_key), job_id, as_json=as_json))


@jobs.command(epilog=f"Exit code 0: done for all. 1: not possible for one.\n\n{_WHERE}")
def retry(job_ids: JobIds, server: Server = None, api_key: ApiKey = None) -> None:
    """Queue ended jobs again."""
    from iidq.cli.operators import operate

    raise typer.Exit(operate.retry_jobs(_target(server, api_key), job_ids))


@jobs.command(epilog=f"Exit code 0: done for all. 1: not possible for one.\n\n{_WHERE}")
def cancel(job_ids: JobIds, server: Server = None, api_key: ApiKey = None) -> None:
    """End waiting or running jobs."""
    from iidq.cli.operators import operate

    raise typer.Exit(operate.cancel_jobs(_target(server, api_key), job_ids))


@jobs.command(
    epilog=f"""Examples:

\b
  iidq jobs watch 01a20ab7-d307-702e-8fe6-dfee29bc1bf7
  iidq jobs watch --status failed

Exit code of a watched job, as of `iidq verify`. 0: OK. 1: FAIL. 3: WARN. 2: no verdict.

{_WHERE}"""
)
def watch(
    job_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="the job's id; without it the newest jobs")
    ] = None,
    status: Status = None,
    kind: Kind = None,
    timeout: Annotated[float, typer.Option(min=1, help="seconds to wait for the end of the job")] = 300.0,
    interval: Interval = 1.0,
    server: Server = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Follow a job to the end, or print every change.

    With an id, until the job has ended. Without, a line for each new or changed job, until Ctrl-C.
    """
    from iidq.cli.operators.watch import watch_job, watch_jobs

    target = _target(server, api_key)
    if job_id is not None:
        raise typer.Exit(watch_job(target, job_id, timeout_seconds=timeout, as_json=as_json))
    raise typer.Exit(watch_jobs(target, _filter(status, kind), interval_seconds=interval, as_json=as_json))


@app.command(epilog=f"Example: iidq stats --watch --interval 5\n\n{_WHERE}")
def stats(
    watched: Annotated[bool, typer.Option("--watch", help="update them, with the speed, until Ctrl-C")] = False,
    interval: Interval = 1.0,
    server: Server = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Print the number of jobs in each state."""
    from iidq.cli.operators import operate

    target = _target(server, api_key)
    if not watched:
        raise typer.Exit(operate.stats(target, as_json=as_json))
    from iidq.cli.operators.watch import watch_stats

    raise typer.Exit(watch_stats(target, interval_seconds=interval, as_json=as_json))


@app.command(epilog=f"Example: iidq pause 'RPC endpoint moves'\n\n{_WHERE}")
def pause(
    reason: Annotated[str | None, typer.Argument(metavar="[REASON]", help="shown with the queue's state")] = None,
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Pause the queue: no job is claimed.

    Running jobs go on; `iidq resume` ends the pause.
    """
    from iidq.cli.operators import operate

    raise typer.Exit(operate.pause(_target(server, api_key), reason))


@app.command(epilog=_WHERE)
def resume(server: Server = None, api_key: ApiKey = None) -> None:
    """End a pause."""
    from iidq.cli.operators import operate

    raise typer.Exit(operate.resume(_target(server, api_key)))


@app.command(
    epilog="""Examples:

\b
  iidq doctor
  iidq doctor --server https://iidq.example.org

Exit code 0: nothing is broken. 1: something is."""
)
def doctor(server: Server = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Check all parts that a job needs.

    Tries database, migrations, LISTEN, workers, chain, gateways and Redis, and prints each result with a remedy.
    With --server, checks the service from outside.
    """
    from iidq.cli.operators.doctor import doctor as run

    raise typer.Exit(run(server=server, api_key=api_key, as_json=as_json))
