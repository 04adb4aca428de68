"""Test that the garbage collector, which blocks the process, has few objects to scan."""

import gc
import subprocess
import sys
import weakref
from typing import Any

import httpx
import psycopg
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tests.job_rows import COMPLETED, insert
from tests.web.serving import JOBS, NO_DATABASE

VALID = {"contentHash": "0x" + "ab" * 32, "manifestURI": "https://example.org/m", "registryAddress": "0x" + "cd" * 20}

_API = """
import gc, os, signal, socket
from iidq.settings import load_settings
from iidq.web.server.api_server import serve_on

def serving():
    print(gc.get_freeze_count() > 10 * len(gc.get_objects()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

serve_on(socket.create_server(("127.0.0.1", 0)), load_settings("database_url"), serving)
"""
_WORKER = """
import asyncio, gc, os, signal
from iidq import worker
from iidq.observability import logs
from iidq.settings import load_settings

def started(*_):
    print(gc.get_freeze_count() > 10 * len(gc.get_objects()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

logs.worker_started = started
asyncio.run(worker.work(load_settings("database_url", "rpc_url")))
"""


async def test_a_request_leaves_nothing_to_the_collector(
    api: httpx.AsyncClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All objects of a request are freed without the collector."""
    served: list[weakref.ref[RequestResponseCycle]] = []
    begin = RequestResponseCycle.__init__

    def begin_watched(self: RequestResponseCycle, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        served.append(weakref.ref(self))

    with psycopg.connect(database_url, autocommit=True) as sql:
        job_id = insert(sql, COMPLETED)
    monkeypatch.setattr(RequestResponseCycle, "__init__", begin_watched)
    gc.disable()
    try:
        for _ in range(2):
            await api.post(f"{JOBS}/verify", json=VALID)
            await api.post(f"{JOBS}/verify", json={**VALID, "chainId": 0})
            await api.post(f"{JOBS}/verify", data=VALID, files={"file": ("a.txt", b"abc")})
            await api.get(f"{JOBS}/{job_id}")
            await api.get(f"{JOBS}/stats")
            await api.get("/nowhere")
        await api.get("/livez")
        # The last requests may still be in progress.
        assert [ref() for ref in served[:-2]] == [None] * (len(served) - 2)
    finally:
        gc.enable()


@pytest.mark.parametrize("program", [_API, _WORKER], ids=["api", "worker"])
def test_what_lasts_is_spared(program: str) -> None:
    """A ready process has frozen its modules and wiring, at least nine tenths of its objects, for the collector."""
    environment = {"DATABASE_URL": NO_DATABASE, "RPC_URL": "http://127.0.0.1:9", "DRAIN_TIMEOUT_SECONDS": "1"}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert told.stdout.splitlines()[0] == "True", told.stderr
