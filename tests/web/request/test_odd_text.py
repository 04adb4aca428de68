"""Test odd texts in every place of a request: accepted, or a 4xx with the cause, but never a 5xx."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_from_bytes

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.job_rows import COMPLETED, FAILED, insert
from tests.web.server.raw_http import Reply, converse, replies_in
from tests.web.serving import JOBS, ServeApi

DATA: Final = "/admin/queues/data"
FIELDS: Final[dict[str, Any]] = {
    "contentHash": "0x" + "ab" * 32,
    "manifestURI": "https://example.org/m",
    "registryAddress": "0x" + "cd" * 20,
}
OPTIONAL: Final = ("chainId", "rpcUrl", "fileName", "share", "callbackUrl")

ODD: Final = [
    *("\ud800", "\udfff", "a\ud800b", "\udc80.txt", "\ud83d", "\0", "a\0b", "\x7f", "\x1b[31m", "\r\n", "\ufeff"),
    *("http://[", "http://[::1", "https://a]", "//[", "[", "http://\ud800/", "https://example.org/\ud800", "ipfs://\0"),
    *("%", "%00", "%FF", "%ZZ", "%ED%A0%80", "+", "*", "../", "..", "\\", '"', "'", ";", "=", ",", ":", "{}", "' OR 1"),
    *("NaN", "-1", "1e999", "9" * 5000, "0" * 400, "\u0663", "\u00b2", "true", "\u0130", "inf", "-0", "0x", "1_0"),
    *("infinity", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z", "2024-01-01T24"),
    *("x" * 600, "x" * 7000, "\U0001f600" * 300, "\u202e\u2066", "\ufdd0", "\U0010ffff", "\u0300" * 50),
    *("multipart/form-data; boundary=\xff", "application/json; charset=\ud800", "text/plain;=", 'a; b="', '"\xff"'),
    *("iidq_session=\xff.\xfe.\xfd", "iidq_session=a.b.c", "iidq_session=nan.b.YQ", "Bearer \xff", "wait=\xb2", "W/"),
    *("00-" + "0" * 32 + "-" + "0" * 16 + "-01", "for=[", "1.2.3.4, \xff", "::ffff:1.2.3", "[::1%\0]", "a@b", "utf-7"),
]  # fmt: skip
texts = st.sampled_from(ODD) | st.text(st.characters(), max_size=20) | st.text(max_size=400)
"""``characters()`` contains surrogates, too."""


@dataclass(frozen=True, slots=True)
class World:
    """A service, and objects for requests."""

    host: str
    """The host of the API."""
    port: int
    """The port of the API."""
    operator: tuple[str, ...]
    """The headers of a page with operator access."""
    ended: str
    """The id of a completed job."""
    failed: str
    """The id of a failed job."""


Sent = bytes
Place = Callable[[World, str], Sent]


def raw(text: str) -> bytes:
    """Return the bytes of ``text``, surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def in_url(text: str) -> str:
    return quote_from_bytes(raw(text), safe="")


def escaped(text: str) -> bytes:
    return in_url(text).encode()


def in_header(text: str) -> bytes:
    """Return the text's bytes for a header's value, without line breaks."""
    return raw(text).replace(b"\r", b"").replace(b"\n", b"")


def message(method: str, target: str | bytes, *headers: str | bytes, body: bytes | None = None) -> Sent:
    lines = [method.encode() + b" " + (target if isinstance(target, bytes) else target.encode()) + b" HTTP/1.1"]
    lines += [header if isinstance(header, bytes) else header.encode() for header in headers]
    if not any(line.lower().startswith(b"host:") for line in lines):
        lines.append(b"Host: 127.0.0.1")
    lines.append(b"Connection: close")
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def document(path: str, make: Callable[[World, str], Any], *headers: str, operator: bool = False) -> Place:
    """Return a place in a JSON body, because JSON can express more texts than UTF-8."""

    def place(world: World, text: str) -> Sent:
        more = world.operator if operator else ()
        body = json.dumps(make(world, text)).encode()
        return message("POST", path, "Content-Type: application/json", *headers, *more, body=body)

    return place


def form(make: Callable[[str], bytes], content_type: Callable[[str], bytes] | None = None) -> Place:
    """Return a place in a complete form, in an additional part or in the content type."""

    def place(world: World, text: str) -> Sent:
        plain = [
            b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), str(value).encode())
            for name, value in FIELDS.items()
        ]
        body = b"".join([*plain, b"--b\r\n", make(text), b"\r\n--b--\r\n"])
        kind = b"multipart/form-data; boundary=b" if content_type is None else content_type(text)
        return message("POST", f"{JOBS}/verify", b"Content-Type: " + kind, body=body)

    return place


def header(name: str, method: str, path: str, *headers: str, body: bytes | None = None) -> Place:
    def place(world: World, text: str) -> Sent:
        target = path.format(ended=world.ended)
        operator = world.operator if path.startswith(DATA) and name not in ("Cookie", "X-CSRF-Token") else ()
        return message(method, target, *operator, *headers, f"{name}: ".encode() + in_header(text), body=body)

    return place


def target(method: str, path: str, *headers: str) -> Place:
    """Return a place in path or query: the text replaces ``{}``, percent-encoded."""

    def place(world: World, text: str) -> Sent:
        operator = world.operator if path.startswith(DATA) else ()
        where = path.replace("{ended}", world.ended).replace("{}", in_url(text))
        return message(method, where, *operator, *headers)

    return place


def raw_target(path: bytes) -> Place:
    def place(world: World, text: str) -> Sent:
        return message("GET", path + in_header(text).replace(b" ", b""))

    return place


def field(name: str, among: Mapping[str, Any] = FIELDS) -> Callable[[World, str], Any]:
    return lambda _, text: {**among, name: text}


def batch_field(name: str) -> Callable[[World, str], Any]:
    return lambda _, text: {"jobs": [{"type": "verify", **FIELDS, name: text}]}


def form_field(name: str) -> Callable[[str], bytes]:
    return lambda text: b'Content-Disposition: form-data; name="%b"\r\n\r\n' % name.encode() + raw(text)


def form_part(disposition: bytes, encode: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Return a part with the text in its head, in place of ``%b``."""
    return lambda text: b"Content-Disposition: " + disposition % encode(text) + b"\r\n\r\nx"


CALLER: Final = ("Cookie", "X-CSRF-Token", "Origin", "Sec-Fetch-Site", "Host", "Forwarded", "X-Forwarded-Proto")
SUBMISSION: Final = json.dumps(FIELDS).encode()
JSON_TYPE: Final = "Content-Type: application/json"
# A good request would get a synchronous verdict from a missing endpoint.
WRONG: Final = {"/api/verify": {**FIELDS, "contentHash": "?"}, "/api/proof": {**FIELDS, "manifestURI": "?"}}
HEADERS: Final[list[tuple[str, str, tuple[str, ...], bytes | None, tuple[str, ...]]]] = [
    ("GET", f"{JOBS}/{{ended}}", (), None, ("If-None-Match", "Prefer", "Origin", "Host", "X-Forwarded-For")),
    ("GET", f"{JOBS}/{{ended}}/events", (), None, ("Last-Event-ID", "Accept", "traceparent", "X-Correlation-ID")),
    (
        "POST",
        f"{JOBS}/verify",
        (JSON_TYPE,),
        SUBMISSION,
        ("Idempotency-Key", "Prefer", "Content-Encoding", "x-api-key"),
    ),
    ("POST", f"{JOBS}/verify", (), SUBMISSION, ("Content-Type", "Accept")),
    ("POST", f"{JOBS}/batch", (JSON_TYPE,), b"{}", ("Idempotency-Key", "Origin", "Authorization")),
    ("POST", f"{JOBS}/batch", (), b"{}", ("Content-Type",)),
    ("POST", f"{JOBS}/pause", (), None, ("Origin", "Sec-Fetch-Site", "Host", "Content-Type")),
    ("GET", JOBS, (), None, ("Origin", "User-Agent", "Accept", "Range", "Accept-Encoding", "Cookie")),
    ("GET", "/metrics", (), None, ("Accept", "Accept-Encoding", "Authorization", "x-api-key")),
    ("GET", "/", (), None, ("If-None-Match", "If-Modified-Since", "Accept-Language")),
    ("GET", "/api/docs.json", (), None, ("If-None-Match",)),
    (
        *("OPTIONS", JOBS, ("Origin: https://a",), None),
        ("Access-Control-Request-Method", "Access-Control-Request-Headers"),
    ),
    ("GET", f"{DATA}/snapshot", (), None, CALLER),
    ("GET", f"{DATA}/session", (), None, CALLER),
    ("POST", f"{DATA}/resume", (), None, CALLER),
    ("POST", f"{DATA}/sign-in", (), None, CALLER),
]
"""Method, path, more headers and body of requests, and the headers for the text."""

PLACES: Final[dict[str, Place]] = {
    **{
        f"{path}: {name}": document(path, field(name))
        for path in (f"{JOBS}/verify", f"{JOBS}/proof")
        for name in (*FIELDS, *OPTIONAL)
    },
    **{
        f"{path}: {name}": document(path, field(name, among))
        for path, among in WRONG.items()
        for name in (*FIELDS, *OPTIONAL)
        if among.get(name) != "?"
    },
    f"{JOBS}/verify: a name": document(f"{JOBS}/verify", lambda _, text: {**FIELDS, text: text}),
    f"{JOBS}/verify: a list": document(f"{JOBS}/verify", lambda _, text: {**FIELDS, "fileName": [text]}),
    f"{JOBS}/verify: all of it": document(f"{JOBS}/verify", lambda _, text: text),
    f"{JOBS}/verify: as bytes": lambda _, text: message(
        "POST", f"{JOBS}/verify", JSON_TYPE, body=b'{"fileName":"' + raw(text) + b'"}'
    ),
    **{f"batch: {name}": document(f"{JOBS}/batch", batch_field(name)) for name in ("type", *FIELDS, *OPTIONAL)},
    "batch: a job": document(f"{JOBS}/batch", lambda _, text: {"jobs": [text]}),
    "batch: jobs": document(f"{JOBS}/batch", lambda _, text: {"jobs": text}),
    "pause: reason": document(f"{JOBS}/pause", lambda _, text: {"reason": text}, operator=True),
    "page: reason": document(f"{DATA}/pause", lambda _, text: {"reason": text}, operator=True),
    "page: key": document(f"{DATA}/sign-in", lambda _, text: {"key": text}),
    "page: cause": document(f"{DATA}/failures/retry", lambda _, text: {"cause": text}, operator=True),
    "page: before": document(f"{DATA}/failures/retry", lambda _, text: {"cause": "x", "before": text}, operator=True),
    **{f"form: {name}": form(form_field(name)) for name in (*FIELDS, *OPTIONAL, "file")},
    "form: a name": form(form_part(b'form-data; name="%b"', in_header)),
    "form: a bare name": form(form_part(b"form-data; name=%b", in_header)),
    "form: a disposition": form(form_part(b"%b", in_header)),
    "form: file name": form(form_part(b'form-data; name="file"; filename="%b"', in_header)),
    "form: a part's header": form(form_part(b"form-data; name=x\r\nX: %b", in_header)),
    "form: a part's coding": form(form_part(b"form-data; name=x\r\nContent-Transfer-Encoding: %b", in_header)),
    **{
        f"form: {charset}": form(form_part(b"form-data; name=file; filename*=" + charset.encode() + b"%b", escaped))
        for charset in ("UTF-8''", "iso-8859-1'en'", "")
    },
    "form: boundary": form(lambda _: b"x", lambda text: b"multipart/form-data; boundary=" + in_header(text)),
    "form: charset": form(lambda _: b"x", lambda text: b"multipart/form-data; boundary=b; charset=" + in_header(text)),
    **{
        f"{name} on {method} {path}": header(name, method, path, *more, body=body)
        for method, path, more, body, names in HEADERS
        for name in names
    },
    **{
        f"path {method} {path}": target(method, path)
        for method, path in [
            *(("GET", f"{JOBS}/{{}}"), ("GET", f"{JOBS}/{{}}/events"), ("POST", f"{JOBS}/{{}}/cancel")),
            *(("POST", f"{JOBS}/{{}}/retry"), ("GET", "/{}"), ("GET", "/jobs/{}")),
            ("GET", "/assets/{}/shared/style.css"),
            *(("GET", "/assets/x/{}"), ("GET", "/admin/queues/jobs/{}"), ("GET", f"{DATA}/jobs/{{}}")),
            *(("POST", f"{DATA}/jobs/{{}}/cancel"), ("POST", f"{DATA}/jobs/{{}}/retry")),
        ]
    },
    **{
        f"query {path} {name}": target("GET", f"{path}?{name}={{}}")
        for path, names in {
            JOBS: ("status", "type", "contentHash", "limit", "offset", "cursor", "other"),
            f"{DATA}/jobs": ("state", "cause", "search", "cursor"),
        }.items()
        for name in names
    },
    "query: a name": target("GET", f"{JOBS}?{{}}=1"),
    "raw path": raw_target(f"{JOBS}/".encode()),
    "raw query": raw_target(f"{JOBS}?cursor=".encode()),
    "raw target": raw_target(b""),
}  # fmt: skip
"""The places for a text in a request."""


@pytest.fixture(params=[None, "open sesame"], ids=["no key", "key"])
async def world(serve_api: ServeApi, database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    with psycopg.connect(database_url, autocommit=True) as sql:
        ended, failed = str(insert(sql, COMPLETED)), str(insert(sql, FAILED))
    key: str | None = request.param
    async with serve_api(
        database_url=database_url,
        api_key=key,
        sync_fallback="off",
        trusted_proxies="127.0.0.1",
        webhook_secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        cors_origins="https://page.example",
        rate_limit_read_per_minute=1_000_000,
        rate_limit_submit_per_minute=1_000_000,
        rate_limit_key_factor=1000,
    ) as api:
        signed_in = await api.post(f"{DATA}/sign-in", json={"key": key}) if key else await api.get(f"{DATA}/session")
        operator = (
            f"Cookie: iidq_session={signed_in.cookies['iidq_session']}",
            f"X-CSRF-Token: {signed_in.json()['csrfToken']}",
            *([f"x-api-key: {key}"] if key else []),
        )
        yield World(api.base_url.host, api.base_url.port or 0, operator, ended, failed)


async def fault(world: World, name: str, text: str, turns: asyncio.Semaphore | None = None) -> str | None:
    """Return the fault of the reply to the request with this text in this place, or None."""
    sent = PLACES[name](world, text)
    async with turns or asyncio.Semaphore(1):
        received = await converse(world.host, world.port, sent)
    replies = replies_in(received, [sent.split(b" ", 1)[0].decode()])
    if not replies:
        return f"{name}: {text!r}: no reply"
    wrong = wrong_reply(replies[0])
    return f"{name}: {text!r}: {wrong}" if wrong else None


def wrong_reply(reply: Reply) -> str | None:
    if reply.status < 400:
        return None
    if reply.status >= 500:
        return f"{reply.status} {reply.body!r}"
    if reply.headers["content-type"] != "application/json":
        # Pages report errors in HTML.
        return None if reply.status in (403, 404) and b"<!doctype html>" in reply.body.lower() else repr(reply)
    told = json.loads(reply.body)
    if told.get("error") == "Validation failed":
        faults = told["errors"]
        return None if faults and all(each["field"] is not None and each["message"] for each in faults) else repr(told)
    named = told.keys() - {"code", "message", "retryAfter"}
    short = reply.status in (401, 404, 429) and named == {"error"}
    return None if told["error"] and (short or named == {"error", "correlationId"}) else repr(told)


@pytest.mark.parametrize("world", ["open sesame"], indirect=True)
async def test_the_oddest_texts_in_every_place(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Surrogates, NUL, broken brackets and bytes outside UTF-8 are accepted or give a 4xx in the common form."""
    turns = asyncio.Semaphore(8)
    asked = [fault(world, name, text, turns) for name in PLACES for text in ("a\ud800b", "\0", "http://[")]
    assert [found for found in await asyncio.gather(*asked) if found] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@settings(max_examples=4 * settings().max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(PLACES)), text=texts)
@example(name="page: before", text="0001-01-01T00:00:00+23:59")
@example(name="page: before", text="9999-12-31T23:59:59-23:59")
async def test_any_text_anywhere(world: World, name: str, text: str) -> None:
    """Any text in any place gives no 5xx, and each error has the common form."""
    assert await fault(world, name, text) is None


VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from([10**400, -(2**63), 1e308, -0.0]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts | st.sampled_from(["type", *FIELDS]), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES: Final = ("type", *FIELDS, *OPTIONAL, "jobs", "reason", "cause", "before", "key", "other")


@st.composite
def json_texts(draw: st.DrawFn) -> bytes:
    """Return a JSON document of known names with any values, broken in some cases."""
    members = draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
    if draw(st.booleans()):
        members = FIELDS | members
    text = json.dumps(draw(st.sampled_from([members, {"jobs": [members]}, [members]]))).encode()
    if draw(st.booleans()):
        start, end = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        broken = draw(st.sampled_from([b"", b"\\ud800", b"\xff", b"[" * 200, b"{" * 200, b"NaN", b",", b'"', b"\0"]))
        text = text[:start] + broken + text[end if draw(st.booleans()) else start :]
    return text


@settings(max_examples=2 * settings().max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(
        [
            f"{JOBS}/verify",
            f"{JOBS}/batch",
            f"{JOBS}/pause",
            f"{DATA}/failures/retry",
            f"{DATA}/pause",
            f"{DATA}/sign-in",
        ]
    ),
    text=json_texts(),
)
@pytest.mark.parametrize("world", ["open sesame"], indirect=True)
async def test_any_json(world: World, path: str, text: bytes) -> None:
    """Any valid or broken JSON is accepted or gives a 4xx in the common form."""
    sent = message("POST", path, JSON_TYPE, *world.operator, body=text)
    [reply] = replies_in(await converse(world.host, world.port, sent), ["POST"])
    assert wrong_reply(reply) is None
