"""List the files that a whole job enters: POST with a file, claim, verification, outcome, GET.

``iidq up`` runs the real processes. A profile function, loaded into each process by ``sitecustomize``, notes file and
time of every function call in ``iidq/``. Several jobs with different content are sent. A file counts if every job
enters the file: in the API between request and reply, or in the worker between the request and the stored outcome.
Periodic tasks of the same processes run during some jobs only, and drop out.
"""

import atexit
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
_FOLDER_VARIABLE = "IIDQ_TRACE_FOLDER"
_JOBS = 4
_WARM_UP_JOBS = 1
"""Jobs sent before the first that counts: connections, plans and caches of a process are made once."""
_START_SECONDS = 90.0
_JOB_SECONDS = 30.0

Window = tuple[float, float]


def install() -> None:
    """Note each function call in a file of ``iidq/``, and write all at the end of the process."""
    folder, prefix = os.environ[_FOLDER_VARIABLE], f"{ROOT / 'iidq'}{os.sep}"
    calls: list[tuple[float, str]] = []

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(prefix) and code.co_name != "<module>":
            calls.append((time.monotonic(), code.co_filename))

    def write() -> None:
        sys.setprofile(None)
        (Path(folder) / f"{os.getpid()}.trace").write_text(json.dumps({"argv": sys.orig_argv, "calls": calls}))

    threading.setprofile(note)
    sys.setprofile(note)
    atexit.register(write)


def files_of_one_job() -> list[str]:
    """Return the files, relative to the repository, that all traced jobs entered."""
    with tempfile.TemporaryDirectory(prefix="iidq-trace-") as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text("import tools.job_trace\ntools.job_trace.install()\n")
        with _stack(folder) as (printed, publish):
            windows = [_one_job(folder, printed, publish, number) for number in range(_WARM_UP_JOBS + _JOBS)]
        api, worker = (_calls(folder, part) for part in ("serve", "iidq.worker"))
    trips = [
        _entered(api, [posted, read]) | _entered(worker, [(posted[0], stored)])
        for posted, stored, read in windows[_WARM_UP_JOBS:]
    ]
    return sorted(str(Path(file).relative_to(ROOT)) for file in set.intersection(*trips))


def _entered(calls: list[tuple[float, str]], windows: list[Window]) -> set[str]:
    return {file for at, file in calls for begin, end in windows if begin <= at <= end}


def _calls(folder: Path, part: str) -> list[tuple[float, str]]:
    """Return the calls of the process with ``part`` among the arguments."""
    for path in folder.glob("*.trace"):
        trace = json.loads(path.read_text())
        if part in trace["argv"]:
            return [(at, file) for at, file in trace["calls"]]
    raise SystemExit(f"no trace of a process with {part!r} in its arguments")


@contextmanager
def _stack(folder: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Run ``iidq up``; yield the printed variables, and the URL for publishing manifests."""
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("DATABASE_URL", "RPC_URL", "REDIS_URL")},
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "PYTHONUNBUFFERED": "1",
        # No poll and no reuse of a verdict within a traced job.
        "POLL_INTERVAL_SECONDS": "60",
        "RESULT_CACHE_SECONDS": "0",
        "LOG_FORMAT": "json",
        _FOLDER_VARIABLE: str(folder),
    }
    log = folder / "up.log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "iidq", "up", "--port", "0"]
        up = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while "Ctrl-C stops everything" not in (text := log.read_text()):
            if up.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"iidq up did not start:\n{text}")
            time.sleep(0.1)
        exported = re.search(r"export (API=.*)", text)
        publish = re.search(r"--publish (\S+)", text)
        assert exported and publish
        shell = subprocess.run(
            ["sh", "-c", f"export {exported[1]}; env"], capture_output=True, text=True, check=True, timeout=10
        )
        yield dict(line.partition("=")[::2] for line in shell.stdout.splitlines()), publish[1]
    finally:
        up.terminate()
        up.wait(60)


def _one_job(folder: Path, printed: dict[str, str], publish: str, number: int) -> tuple[Window, float, Window]:
    """Register and verify a file; return the times of the POST, the stored outcome and the GET."""
    import httpx
    import psycopg

    path = folder / f"content-{number}.bin"
    path.write_bytes(os.urandom(4096))
    manifest = _register(path, printed, publish)
    with (
        httpx.Client(base_url=printed["API"], trust_env=False, timeout=_JOB_SECONDS) as client,
        psycopg.connect(printed["DATABASE_URL"], autocommit=True) as connection,
        path.open("rb") as file,
    ):
        fields = {"registryAddress": printed["REGISTRY"], "manifestURI": manifest}
        begin = time.monotonic()
        reply = client.post("/api/verification-jobs/verify", files={"file": file}, data=fields).raise_for_status()
        posted = begin, time.monotonic()
        job = reply.json()["jobId"]
        query = 'SELECT status FROM "VerificationJob" WHERE id = %s'
        while (row := connection.execute(query, (job,)).fetchone()) and row[0] in ("queued", "processing"):
            if time.monotonic() - begin > _JOB_SECONDS:
                raise SystemExit(f"job {job} did not end within {_JOB_SECONDS:g} s")
            time.sleep(0.002)
        # The worker still counts and logs the outcome after its commit.
        time.sleep(0.05)
        stored = time.monotonic()
        read = client.get(f"/api/verification-jobs/{job}").raise_for_status().json()
        assert read["status"] == "completed", read
        return posted, stored, (stored, time.monotonic())


def _register(path: Path, printed: dict[str, str], publish: str) -> str:
    """Register the file on the development chain; return the manifest's URI."""
    command = [sys.executable, "-m", "iidq", "register", str(path), "--publish", publish, "--json"]
    environment = {**os.environ, "RPC_URL": printed["RPC_URL"], "IIDQ_REGISTRY": printed["REGISTRY"]}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise SystemExit(f"iidq register failed:\n{done.stdout}{done.stderr}")
    uri: str = json.loads(done.stdout)["manifestUri"]
    return uri
