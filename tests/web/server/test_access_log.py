"""Test the access log: one line per request, in both forms, without forgeries and secrets."""

import asyncio
import io
import json
import re
from collections.abc import Iterator
from typing import Literal

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.observability import access_log, logs
from tests.web.serving import JOBS, ServeApi

_LINE = re.compile(r'\S+Z \[info     \] request\.served +(?:[a-z_]+=(?:[^\s"=]+|"(?:[^"\\]|\\.)*") ?)+\n')


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    yield stream
    logs.configure_logging("info", "json", io.StringIO())
    logs._access = None


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [line for line in map(json.loads, stream.getvalue().splitlines()) if line["event"] == "request.served"]


async def test_a_request_is_one_line(lonely_api: httpx.AsyncClient, log: io.StringIO) -> None:
    """A request gives one line with event, id, client, method, path, route, status, duration, level and time."""
    logs.configure_logging("info", "json", log)
    reply = await lonely_api.get("/livez", headers={"X-Correlation-ID": "abc-1"})
    assert reply.status_code == 200
    [line] = lines(log)
    duration, timestamp = line.pop("duration_ms"), line.pop("timestamp")
    assert line == {
        "event": "request.served",
        "level": "info",
        "correlation_id": "abc-1",
        "client": "127.0.0.1",
        "method": "GET",
        "path": "/livez",
        "route": "/livez",
        "status": 200,
    }
    assert isinstance(duration, float)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(timestamp))


@pytest.mark.parametrize("form", ["json", "text"])
async def test_no_secret_reaches_the_log(serve_api: ServeApi, log: io.StringIO, form: Literal["json", "text"]) -> None:
    """The log never contains the query string, keys, the body, or credentials in a path."""
    logs.configure_logging("info", form, log)
    async with serve_api(api_key="hidden-key") as api:
        await api.get(f"{JOBS}/stats?api_key=hidden-query", headers={"x-api-key": "hidden-key"})
        await api.post(f"{JOBS}/verify", json={"manifestURI": "https://u:hidden-body@example.org/"})
        await api.get("/https://user:hidden-path@example.org/%3Ftoken=hidden-token")
    assert log.getvalue().count("request.served") == 3
    assert "hidden" not in log.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
async def test_no_request_forges_a_line(
    lonely_api: httpx.AsyncClient, log: io.StringIO, form: Literal["json", "text"]
) -> None:
    """Line feeds, escapes and quotes in a path stay inside their field."""
    logs.configure_logging("info", form, log)
    path = '/x%0A{"event": "request.served", "status": 200}%1B[31m" status=200%E2%80%A8%C2%85'
    host, port = str(lonely_api.base_url.host), lonely_api.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert b" 404 " in await reader.read()
    writer.close()
    written = log.getvalue()
    assert written.count("\n") == 1
    assert written.isascii()
    assert "\x1b" not in written
    if form == "json":
        [line] = lines(log)
        assert (line["status"], line["route"]) == (404, "unmatched")


async def test_a_quiet_level_writes_none(lonely_api: httpx.AsyncClient, log: io.StringIO) -> None:
    """``LOG_LEVEL=warning`` silences the access log."""
    logs.configure_logging("warning", "json", log)
    await lonely_api.get("/livez")
    assert log.getvalue() == ""


async def test_a_log_that_cannot_be_written_costs_no_reply(lonely_api: httpx.AsyncClient, log: io.StringIO) -> None:
    """Requests get replies even if the log cannot be written."""
    logs.configure_logging("info", "json", log)
    log.close()
    assert (await lonely_api.get("/livez")).status_code == 200


_anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@given(_anything, _anything, _anything, st.integers(0, 599), st.floats(0, 1e6))
def test_any_request_is_one_json_object(method: str, path: str, client: str, status: int, duration_ms: float) -> None:
    """For any values the line is one ASCII line of JSON, with each value in its field."""
    line = access_log.json_line("id", method, path, "/r", status, duration_ms, client)
    assert line.isascii()
    assert line.count("\n") == 1
    read = json.loads(line)
    assert (read["method"], read["client"], read["status"], read["event"]) == (method, client, status, "request.served")
    if "@" not in path and "=" not in path:
        assert read["path"] == path


@given(_anything, _anything, _anything)
def test_any_request_is_one_text_line(method: str, path: str, client: str) -> None:
    """For any values the line has its seven fields; values with special characters are quoted."""
    line = access_log.text_line("id", method, path, "/r", 200, 1.5, client)
    assert _LINE.fullmatch(line)
    assert len(re.findall(r"(?:^| )([a-z_]+)=", re.sub(r'"(?:[^"\\]|\\.)*"', '""', line))) == 7


def test_a_long_path_is_cut() -> None:
    """A long path is cut to a bounded length in the log."""
    assert len(access_log.text_line("id", "GET", "/" + "x" * 8000, "/r", 200, 1.5, "c")) < 800
