"""IPFS gateways that fail, lie or are slow, as real servers on 127.0.0.1."""

import asyncio
import gzip
import hashlib
from collections.abc import Mapping

import pytest

from iidq.errors import FetchRefused, GatewayFault, ManifestFault, SettingsFault
from iidq.guarded_http.fetch_policy import PUBLIC_ONLY
from iidq.guarded_http.http_connection import Deadlines
from iidq.provenance.ipfs.cid import DAG_PB, RAW
from iidq.provenance.ipfs.gateway import Gateway, GatewayAddress
from iidq.provenance.ipfs.gateways import IpfsGateways
from iidq.provenance.ipfs.unixfs import wrap_file
from iidq.provenance.manifest_uri import IpfsUri, parse_manifest_uri
from iidq.provenance.report import FetchedManifest
from tests.unit.guarded_http.scripted_server import Answer, Request, always, never, response, serving
from tests.unit.ipfs.ipfs_blocks import CAR_HEADER, car, cid_v0, cid_v1, node, section, split_file

CONTENT = b'{"content_hash": "0x00"}'
BLOCK = wrap_file(CONTENT)
URI = f"ipfs://{cid_v0(BLOCK)}"
RAW_ANSWER = always(response(BLOCK, "Content-Type: application/vnd.ipld.raw"))
WRONG = always(response(b"<!doctype html><title>Welcome</title>", "Content-Type: text/html"))
ABSENT = always(response(status=404))
PATIENT = Deadlines(connect_seconds=20, first_byte_seconds=20, idle_seconds=20, total_seconds=30)
IMPATIENT = Deadlines(connect_seconds=20, first_byte_seconds=0.2, idle_seconds=0.2, total_seconds=5)
LONG_HEDGE_SECONDS = 20.0
LIMIT = 4000


def ipfs(text: str) -> IpfsUri:
    """Return the parsed URI."""
    uri = parse_manifest_uri(text, allow_private=PUBLIC_ONLY)
    assert isinstance(uri, IpfsUri)
    return uri


async def ask(
    *urls: str, uri: str = URI, hedge_seconds: float = LONG_HEDGE_SECONDS, impatient_with: str | None = None
) -> FetchedManifest:
    """Fetch once through fresh gateways."""
    gateways = IpfsGateways(
        [Gateway(url, deadlines=IMPATIENT if url == impatient_with else PATIENT) for url in urls],
        max_bytes=LIMIT,
        hedge_seconds=hedge_seconds,
    )
    try:
        return await gateways.fetch(ipfs(uri))
    finally:
        await gateways.aclose()


def by_format(answers: Mapping[str, bytes]) -> Answer:
    """Answer ``?format=raw`` and ``?format=car`` with separate bodies."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        for form, body in answers.items():
            if f"format={form}" in request.target:
                writer.write(response(body))
                return
        writer.write(response(status=400))

    return answer


async def test_a_raw_block_is_asked_for_verified_and_unwrapped() -> None:
    """A raw block is requested in both ways, by query and header; the source shows host, port and digest."""
    async with serving(RAW_ANSWER) as server:
        fetched = await ask(server.url)
    assert (fetched.body, fetched.cid_verified) == (CONTENT, True)
    assert server.requests[0].target == f"/ipfs/{URI.removeprefix('ipfs://')}?format=raw"
    assert server.requests[0].headers["accept"] == "application/vnd.ipld.raw"
    (source,) = fetched.sources
    assert (source.what, source.outcome) == ("manifest", "used")
    assert source.url.startswith(f"{server.url}/ipfs/")
    assert source.digest == f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.mark.parametrize("uri", [URI, f"ipfs://{cid_v1(DAG_PB, BLOCK)}", f"ipfs://{cid_v1(RAW, CONTENT)}"])
async def test_a_gateway_that_serves_plain_files_will_do(uri: str) -> None:
    """Plain bytes count if the bytes, wrapped by the CID's version and codec, give the CID."""
    async with serving(always(response(CONTENT))) as server:
        assert (await ask(server.url, uri=uri)).body == CONTENT


@pytest.mark.parametrize(
    "lie",
    [
        WRONG,
        always(response(b"")),
        always(response(BLOCK[:-1])),
        always(response(CONTENT + b"\n")),
        always(response(wrap_file(CONTENT + b" "))),
    ],
)
async def test_bytes_that_do_not_match_are_never_used_and_are_told(lie: Answer) -> None:
    """After bytes that do not match, the next gateway is asked at once; the source lists the first with host, port and
    digest.
    """
    async with serving(lie) as liar, serving(RAW_ANSWER) as honest:
        fetched = await ask(liar.url, honest.url)
    assert fetched.body == CONTENT
    told, used = fetched.sources
    assert (told.outcome, used.outcome) == ("mismatched", "used")
    assert told.url.startswith(f"{liar.url}/ipfs/")
    assert told.digest is not None
    assert told.digest != used.digest


async def test_only_liars_are_a_temporary_fault() -> None:
    """Wrong bytes prove nothing about the manifest; the message names every gateway with wrong bytes."""
    async with serving(WRONG) as one, serving(WRONG) as other:
        with pytest.raises(GatewayFault) as caught:
            await ask(one.url, other.url)
    assert caught.value.code == "fetch.wrong_bytes"
    assert f"127.0.0.1:{one.port}" in caught.value.message
    assert f"127.0.0.1:{other.port}" in caught.value.message


async def test_absence_needs_every_gateways_word() -> None:
    """A 404 of one gateway is no proof; if all gateways answer 404 or 410, the manifest is not found for good."""
    async with serving(ABSENT) as absent, serving(RAW_ANSWER) as honest:
        assert (await ask(absent.url, honest.url)).body == CONTENT
    async with serving(ABSENT) as one, serving(always(response(status=410))) as other:
        with pytest.raises(ManifestFault) as permanent:
            await ask(one.url, other.url)
    assert permanent.value.code == "manifest.not_found"
    async with serving(ABSENT) as absent, serving(always(response(status=502))) as broken:
        with pytest.raises(GatewayFault):
            await ask(absent.url, broken.url)


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503, 504])
async def test_other_statuses_are_temporary(status: int) -> None:
    """Any other error status of a gateway is a temporary fault."""
    async with serving(always(response(status=status))) as server:
        with pytest.raises(GatewayFault, match=str(status)):
            await ask(server.url)


@pytest.mark.parametrize(
    "broken",
    [
        never,
        always(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nx"),
        always(b"HTTP/1.1 200 OK\r\n"),
        always(response(gzip.compress(bytes(1_000_000)), "Content-Encoding: gzip")),
        always(response(bytes((2 << 20) + 1))),
        always(response(b"", "Location: /", status=302)),
        always(response(b"", "Location: http://127.0.0.2/", status=302)),
    ],
)
async def test_a_broken_gateway_is_passed_over(broken: Answer) -> None:
    """Silence, stalls, bombs, endless bodies and forbidden redirects cost only the way to the next gateway."""
    async with serving(broken) as bad, serving(RAW_ANSWER) as good:
        fetched = await ask(bad.url, good.url, impatient_with=bad.url)
    assert fetched.body == CONTENT
    assert [source.outcome in ("failed", "refused") for source in fetched.sources] == [True, False]


async def test_a_gateway_that_is_down_is_passed_over() -> None:
    """A closed port is a failed source, and the next gateway is used."""
    async with serving(RAW_ANSWER) as gone:
        dead = gone.url
    async with serving(RAW_ANSWER) as good:
        fetched = await ask(dead, good.url)
    assert [source.outcome for source in fetched.sources] == ["failed", "used"]


async def test_a_gateway_may_redirect_to_itself_but_not_inside() -> None:
    """A gateway on a private address may redirect to its own host only; other private addresses are never asked."""

    async def to_itself(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target.startswith("/moved"):
            writer.write(response(BLOCK))
        else:
            writer.write(response(b"", "Location: /moved", status=301))

    async with serving(to_itself) as server:
        assert (await ask(server.url)).body == CONTENT
    async with serving(RAW_ANSWER) as inside:
        moved = always(response(b"", f"Location: http://127.0.0.2:{inside.port}/", status=301))
        async with serving(moved) as server:
            with pytest.raises(FetchRefused) as caught:
                await ask(server.url)
    assert caught.value.code == "fetch.refused.address"
    assert inside.connections == 0


async def test_the_second_gateway_starts_after_the_delay_and_the_slow_one_is_hung_up_on() -> None:
    """A hanging gateway costs the hedging delay, and is reported as given up."""
    async with serving(never) as slow, serving(RAW_ANSWER) as fast:
        fetched = await ask(slow.url, fast.url, hedge_seconds=0.01)
        await slow.hung_up.wait()
    assert fetched.body == CONTENT
    assert [(source.outcome, "faster" in source.message) for source in fetched.sources] == [
        ("failed", True),
        ("used", False),
    ]


async def test_the_first_verified_answer_wins_not_the_first_answer() -> None:
    """Wrong bytes from a fast gateway do not stop the slower honest gateway."""

    async def after_the_lie(request: Request, writer: asyncio.StreamWriter) -> None:
        await liar.hung_up.wait()
        writer.write(response(BLOCK))

    async with serving(always(response(b"lie", "Connection: close"))) as liar, serving(after_the_lie) as slow:
        fetched = await ask(slow.url, liar.url, hedge_seconds=0.01)
    assert [source.outcome for source in fetched.sources] == ["used", "mismatched"]


async def test_a_fast_gateway_is_asked_alone() -> None:
    """Within the delay the second gateway gets no request."""
    async with serving(RAW_ANSWER) as first, serving(RAW_ANSWER) as second:
        await ask(first.url, second.url)
    assert (len(first.requests), len(second.requests)) == (1, 0)


async def test_a_cancelled_fetch_leaves_nobody_waiting() -> None:
    """A cancelled fetch closes the connection to every gateway before the call ends."""
    async with serving(never) as one, serving(never) as other:
        task = asyncio.create_task(ask(one.url, other.url, hedge_seconds=0.01))
        await one.asked.wait()
        await other.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await one.hung_up.wait()
        await other.hung_up.wait()


async def test_retry_after_is_honoured() -> None:
    """A gateway with a Retry-After is not asked again, and the fault has the remaining seconds."""
    async with serving(always(response(b"", "Retry-After: 120", status=429))) as server:
        gateways = IpfsGateways([Gateway(server.url)], max_bytes=LIMIT)
        for _ in range(2):
            with pytest.raises(GatewayFault) as caught:
                await gateways.fetch(ipfs(URI))
            assert caught.value.retry_after_seconds is not None
            assert 100 < caught.value.retry_after_seconds <= 120
        await gateways.aclose()
    assert len(server.requests) == 1


async def test_a_gateway_that_keeps_failing_is_left_alone_while_another_works() -> None:
    """After three failures in a row the circuit is open; without another gateway the failing gateway still gets
    requests.
    """
    async with serving(always(response(status=500))) as broken, serving(RAW_ANSWER) as good:
        bad = Gateway(broken.url)
        both = IpfsGateways([bad, Gateway(good.url)], max_bytes=LIMIT)
        for _ in range(5):
            await both.fetch(ipfs(URI))
        assert (len(broken.requests), len(good.requests)) == (3, 5)
        with pytest.raises(GatewayFault):
            await IpfsGateways([bad], max_bytes=LIMIT).fetch(ipfs(URI))
        assert len(broken.requests) == 4
        await both.aclose()


LONG_CONTENT = bytes(range(256)) * 12
LONG_ROOT, LONG_BLOCKS = split_file(LONG_CONTENT, 1000)
DIRECTORY = node(1, None, ("manifest.json", DAG_PB, BLOCK), ("long", DAG_PB, LONG_ROOT))


async def test_a_file_of_several_blocks_comes_as_a_car() -> None:
    """If the first block has children, the same gateway is asked for the whole entity as a CAR."""
    async with serving(by_format({"raw": LONG_ROOT, "car": car(*LONG_BLOCKS)})) as server:
        fetched = await ask(server.url, uri=f"ipfs://{cid_v0(LONG_ROOT)}")
    assert fetched.body == LONG_CONTENT
    assert server.requests[1].target.endswith("?format=car&dag-scope=entity")
    assert server.requests[1].headers["accept"] == "application/vnd.ipld.car"


@pytest.mark.parametrize(("path", "content"), [("manifest.json", CONTENT), ("long", LONG_CONTENT)])
async def test_a_path_is_resolved_in_a_verified_car(path: str, content: bytes) -> None:
    """``ipfs://CID/path`` is followed through verified blocks."""
    archive = car((DAG_PB, DIRECTORY), (DAG_PB, BLOCK), *LONG_BLOCKS)
    async with serving(by_format({"car": archive})) as server:
        fetched = await ask(server.url, uri=f"ipfs://{cid_v0(DIRECTORY)}/{path}")
    assert fetched.body == content
    assert f"/{path}?format=car" in server.requests[0].target


@pytest.mark.parametrize(
    ("archive", "outcome"),
    [
        (car((DAG_PB, DIRECTORY), (DAG_PB, BLOCK))[:-1], "failed"),
        (car((DAG_PB, DIRECTORY)), "failed"),
        (CAR_HEADER, "failed"),
        (b"<html>", "failed"),
        (CAR_HEADER + section(DAG_PB, b"forged", named_after=DIRECTORY), "mismatched"),
        (car((DAG_PB, node(1, None, ("manifest.json", RAW, b"forged"))), (RAW, b"forged")), "failed"),
    ],
)
async def test_an_unusable_car_is_passed_over(archive: bytes, outcome: str) -> None:
    """Cut off, incomplete or forged archives, and archives of another tree, are never used."""
    whole = car((DAG_PB, DIRECTORY), (DAG_PB, BLOCK))
    async with serving(always(response(archive))) as bad, serving(always(response(whole))) as good:
        fetched = await ask(bad.url, good.url, uri=f"ipfs://{cid_v0(DIRECTORY)}/manifest.json")
    assert fetched.body == CONTENT
    assert [source.outcome for source in fetched.sources] == [outcome, "used"]


async def test_what_verified_blocks_prove_ends_the_search() -> None:
    """A missing entry, a directory or a large file is proven by the CID, so no other gateway is asked."""
    huge, huge_blocks = split_file(bytes(LIMIT + 1), 1000)
    directory = {"raw": DIRECTORY, "car": car((DAG_PB, DIRECTORY))}
    for answers, uri, code in (
        (directory, f"ipfs://{cid_v0(DIRECTORY)}", "manifest.not_a_file"),
        (directory, f"ipfs://{cid_v0(DIRECTORY)}/missing", "manifest.not_found"),
        ({"raw": huge, "car": car(*huge_blocks)}, f"ipfs://{cid_v0(huge)}", "manifest.too_large"),
        ({"raw": bytes(LIMIT + 1)}, f"ipfs://{cid_v1(RAW, bytes(LIMIT + 1))}", "manifest.too_large"),
        ({"raw": bytes(LIMIT + 1)}, f"ipfs://{cid_v0(wrap_file(bytes(LIMIT + 1)))}", "manifest.too_large"),
    ):
        async with serving(by_format(answers)) as server, serving(RAW_ANSWER) as other:
            with pytest.raises(ManifestFault) as caught:
                await ask(server.url, other.url, uri=uri)
        assert caught.value.code == code
        assert not other.requests


def test_a_gateways_own_path_is_not_shown() -> None:
    """Reports do not show keys in a gateway's path; host and port are shown."""
    shown = GatewayAddress.parse("https://user:pass@gateway.example:8443/secret-key").shown_url_of(ipfs(URI))
    assert shown == f"https://gateway.example:8443/***/ipfs/{URI.removeprefix('ipfs://')}"


def test_gateway_urls_are_read_once() -> None:
    """A gateway's path stays in front, credentials become a header and never part of a URL, queries stop the start."""
    address = GatewayAddress.parse("https://user:pa%20ss@Gateway.Example:8443/deep/")
    assert str(address.url_of(ipfs(URI + "/a b".replace(" ", "%20")))) == (
        f"https://gateway.example:8443/deep/ipfs/{URI.removeprefix('ipfs://')}/a%20b"
    )
    assert address.headers == (("Authorization", "Basic dXNlcjpwYSBzcw=="),)
    assert str(GatewayAddress.parse("http://[::1]:8080").base) == "http://[::1]:8080"
    for url in ("https://gateway.example?token=x", "http://a b/", "http://x:99999"):
        with pytest.raises(SettingsFault, match="IPFS_GATEWAYS"):
            GatewayAddress.parse(url)
