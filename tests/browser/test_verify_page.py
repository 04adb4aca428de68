"""The verification page in a real browser, in front of a real server, worker and chain."""

import hashlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from playwright.async_api import Page, Response, Route, expect

from iidq.cli.verification.verdict_words import registered_manifest
from iidq.embedded.demo_registry import revoke
from iidq.embedded.endpoint import serve_locally
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.manifest import make_manifest
from iidq.setting_values.checks import ChainAccount
from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.pages import PAGE_POLICY
from tests.browser.buffering_proxy import buffering_proxy
from tests.browser.conftest import OpenPage, Service
from tests.browser.memory import browser_bytes
from tests.eventually import eventually
from tests.job_rows import COMPLETED, FAILED, insert
from tests.unit.provenance.test_conclusion import CASES, OTHER_URI, URI, results
from tests.web.serving import NO_DATABASE, NO_LIMITS

expect.set_options(timeout=20_000)

Picture = Callable[[Page, str], Awaitable[None]]
Violations = Callable[[Page], Awaitable[list[str]]]


def sha256(content: bytes) -> str:
    return "0x" + hashlib.sha256(content).hexdigest()


def link(service: Service, manifest_uri: str) -> str:
    return f"{service.url}/?manifestURI={quote(manifest_uri, safe='')}"


async def verify_file(page: Page, path: Path) -> None:
    await page.set_input_files("#file", path)
    await page.click("#send")


def title(page: Page) -> Any:
    return expect(page.locator("#job-title"))


async def test_genuine_file(service: Service, open_page: OpenPage, picture: Picture) -> None:
    """The browser hashes the file and sends only its hash; the page shows the verdict in words, with every check."""
    page = await open_page(link(service, service.song_manifest))
    sent: list[bytes] = []
    page.on("request", lambda request: sent.append(request.post_data_buffer or b""))
    await expect(page.locator("#registryAddress")).to_have_value(service.registry)
    await expect(page.locator("#chainId")).to_have_value("31337")
    await picture(page, "verify-form")
    await verify_file(page, service.song)
    await title(page).to_contain_text("Genuine: registered by 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 on ")
    # The heading has the focus, so a screen reader continues there.
    assert await page.evaluate("document.activeElement.id") == "job-title"
    content_hash = sha256(service.song.read_bytes())
    [body] = [body for body in sent if body]
    assert json.loads(body)["contentHash"] == content_hash
    checks = page.locator("#checks")
    await expect(checks).to_contain_text("The signer is the registered creator")
    await expect(checks.locator("section", has_text="What was not checked")).to_contain_text("Only proofs search")
    await expect(page.locator("#facts")).to_contain_text(content_hash)
    await page.click("#raw summary")
    raw = json.loads(await page.inner_text("#raw-text"))
    assert (raw["result"]["status"], raw["fileName"]) == ("OK", "song.wav")
    await page.click("#raw summary")
    await picture(page, "verify-genuine")


async def test_tampered_file(service: Service, open_page: OpenPage, tmp_path: Path, picture: Picture) -> None:
    """A file with one changed bit is not genuine; the page gives the reason and the next step."""
    content = bytearray(service.song.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "song.wav"
    path.write_bytes(content)
    page = await open_page(link(service, service.song_manifest), color_scheme="dark")
    await verify_file(page, path)
    await title(page).to_contain_text("Changed or unknown: this file is not registered")
    await expect(page.locator("#job-words")).to_contain_text("The file was changed")
    await expect(page.locator("text=Verify with the registered manifest")).to_have_count(0)
    await expect(page.locator("#job-words")).to_contain_text("Get the file again from its source")
    await picture(page, "verify-tampered-dark")


async def test_other_verdicts(service: Service, open_page: OpenPage, tmp_path: Path, picture: Picture) -> None:
    """A manifest other than the registered one, and a withdrawn registration, each give a warning with the reason."""
    path = tmp_path / "poem.txt"
    path.write_bytes(os.urandom(32))
    content_hash = sha256(path.read_bytes())
    uri = await service.publish(content_hash, "poem.json", registered_as="ipfs://elsewhere")
    page = await open_page(link(service, uri))
    await verify_file(page, path)
    await title(page).to_contain_text("Genuine, but not with this manifest: registered by 0x7099")
    await picture(page, "verify-warning")
    await revoke(service.rpc_url, service.registry, DEVELOPMENT_KEYS[1], content_hash)
    await page.goto(link(service, uri))
    await verify_file(page, path)
    await title(page).to_contain_text("and withdrawn since")


async def test_a_registered_file_is_told_from_a_changed_one(
    service: Service, open_page: OpenPage, tmp_path: Path
) -> None:
    """A registered file with the manifest of another file is called registered, with a link to its own manifest."""
    path = tmp_path / "essay.txt"
    path.write_bytes(os.urandom(32))
    await service.publish(sha256(path.read_bytes()), "essay.json")
    page = await open_page(link(service, service.song_manifest))
    await verify_file(page, path)
    await title(page).to_contain_text("Registered, but this manifest belongs to another file: registered by 0x7099")
    await expect(page.locator("#job-words")).not_to_contain_text("changed")
    await page.click("#actions >> text=Verify with the registered manifest")
    await title(page).to_contain_text("Genuine: registered by 0x7099")
    await expect(page.locator("#facts")).to_contain_text("essay.json")
    await expect(page.locator("#facts")).to_contain_text("essay.txt")


async def test_a_file_that_somebody_else_signed(service: Service, open_page: OpenPage) -> None:
    """A registered file with a manifest by another signer is called registered.

    The page names the signer and offers the registered manifest.
    """
    content = os.urandom(32)
    content_hash = sha256(content)
    await service.publish(content_hash, "mine.json")
    forged = make_manifest(content_hash, DEVELOPMENT_KEYS[2], "https://example.org/forged", 31337)
    page = await open_page(link(service, service.manifests.publish("forged.json", forged)))
    await page.set_input_files("#file", {"name": "a", "mimeType": "text/plain", "buffer": content})
    await page.click("#send")
    await title(page).to_contain_text("Registered, but the manifest has another signer: registered by 0x7099")
    await expect(page.locator("#job-words")).to_contain_text("is signed by 0x3C44")
    await page.click("#actions >> text=Verify with the registered manifest")
    await title(page).to_contain_text("Genuine: registered by 0x7099")


async def test_the_page_comes_to_the_same_case(service: Service, open_page: OpenPage) -> None:
    """For each evidence the page names the same case as the report, for a verification and for a proof."""
    page = await open_page(service.url)
    told: list[dict[str, Any]] = []
    expected = []
    for case, (status, conclusion) in CASES.items():
        for result in results(*case):
            told.append({"status": "completed", "result": result, "manifestUri": URI if case[3] else OTHER_URI})
            expected.append([status, conclusion, registered_manifest(result, URI if case[3] else OTHER_URI)])
    found = await page.evaluate(
        """async (jobs) => {
          const root = document.querySelector("script[type=module]").src.replace("verify.js", "");
          const { caseOf, registeredManifest, verdictOf } = await import(`${root}verdict.js`);
          const tones = { good: "OK", warn: "WARN", bad: "FAIL" };
          return jobs.map((job) => [tones[verdictOf(job).tone], caseOf(job), registeredManifest(job)]);
        }""",
        told,
    )
    assert found == expected


async def test_proof_is_made_and_saved(service: Service, open_page: OpenPage, picture: Picture) -> None:
    """The button saves the proof as a JSON file, and the proof has its own page."""
    page = await open_page(link(service, service.song_manifest))
    await verify_file(page, service.song)
    await page.click("text=Make a proof")
    async with page.expect_download() as saving:
        await page.click("text=Download the proof")
    download = await saving.value
    proof = json.loads((await download.path()).read_text())
    assert proof["verification"]["status"] == "OK"
    assert proof["content"] == {"file": "song.wav", "hash": sha256(service.song.read_bytes())}
    await picture(page, "verify-proof")
    await page.click("text=Its own page")
    await title(page).to_contain_text("Genuine: registered by")
    await expect(page.locator("text=Download the proof")).to_be_visible()


async def test_progress_is_live_and_a_reload_finds_the_job(
    service: Service, open_page: OpenPage, tmp_path: Path, picture: Picture
) -> None:
    """Steps arrive as live events while the job runs. After a reload, and in a second tab, the page continues."""
    path = tmp_path / "slow.bin"
    path.write_bytes(os.urandom(32))
    uri = await service.publish(sha256(path.read_bytes()), "slow.json")
    with service.manifests.held("slow.json"):
        page = await open_page(link(service, uri))
        await verify_file(page, path)
        now = page.locator("#steps [aria-current=step]")
        await expect(now).to_contain_text("Fetching the manifest")
        await expect(page.locator("#job")).to_have_attribute("data-transport", "live")
        await picture(page, "verify-progress")
        await page.reload()
        await expect(now).to_contain_text("Fetching the manifest")
        second = await page.context.new_page()
        await second.goto(page.url)
        await expect(second.locator("#steps [aria-current=step]")).to_contain_text("Fetching the manifest")
    for tab in (page, second):
        await title(tab).to_contain_text("Genuine")
        await expect(tab.locator("#job")).to_have_attribute("data-transport", "live")
        # A screen reader hears the verdict, too.
        await expect(tab.locator("#announcer")).to_contain_text("OK. Genuine")


async def test_proxy_that_holds_events_back(service: Service, open_page: OpenPage, tmp_path: Path) -> None:
    """Behind a proxy without live events, the page polls and progress still moves."""
    path = tmp_path / "proxied.bin"
    path.write_bytes(os.urandom(32))
    uri = await service.publish(sha256(path.read_bytes()), "proxied.json")
    async with buffering_proxy(service.url) as proxy:
        with service.manifests.held("proxied.json"):
            page = await open_page(f"{proxy.url}/?manifestURI={uri}")
            await verify_file(page, path)
            await expect(page.locator("#job")).to_have_attribute("data-transport", "polling")
            await expect(page.locator("#steps [aria-current=step]")).to_contain_text("Fetching the manifest")
        await title(page).to_contain_text("Genuine")
        job_path = page.url.removeprefix(proxy.url).replace("/jobs/", "/api/verification-jobs/")
        assert proxy.asked.count(f"{job_path}/events") == 1
        assert job_path in proxy.asked


async def test_server_restarts_in_the_middle(service: Service, open_page: OpenPage, tmp_path: Path) -> None:
    """After the API process is killed in the middle of a stream, the page reconnects and shows the end."""
    path = tmp_path / "restart.bin"
    path.write_bytes(os.urandom(32))
    uri = await service.publish(sha256(path.read_bytes()), "restart.json")
    with service.manifests.held("restart.json"):
        page = await open_page(link(service, uri), refusals=True)
        streams: list[str] = []
        page.on("request", lambda request: streams.append(request.url) if request.url.endswith("/events") else None)
        await verify_file(page, path)
        await expect(page.locator("#steps [aria-current=step]")).to_contain_text("Fetching the manifest")
        [api] = [pid for pid, command in service.sandbox.processes().items() if " iidq serve " in command]
        os.kill(api, signal.SIGKILL)
        await eventually(lambda: len(streams) > 1)
    await title(page).to_contain_text("Genuine")


async def test_large_file(service: Service, open_page: OpenPage, tmp_path: Path, picture: Picture) -> None:
    """A 1 GB file is hashed in a worker with flat memory, progress and speed; a changed byte is noticed."""
    path = tmp_path / "film.bin"
    with path.open("wb") as file:
        file.truncate(1_000_000_000)
        file.seek(-8, os.SEEK_END)
        file.write(os.urandom(8))
    with path.open("rb") as file:
        content_hash = "0x" + hashlib.file_digest(file, "sha256").hexdigest()
    uri = await service.publish(content_hash, "film.json")
    page = await open_page(link(service, uri))
    # The first file starts the worker and loads its code.
    await page.set_input_files("#file", service.song)
    await expect(page.locator("#hash-text")).to_have_text(sha256(service.song.read_bytes()))
    before = browser_bytes()
    await page.set_input_files("#file", path)
    await expect(page.locator("#hash-state")).to_contain_text("MB of 1.0 GB")
    await expect(page.locator("#hash-speed")).to_contain_text("B/s")
    await picture(page, "verify-hashing")
    # A click before the hash is known: the page sends the hash once known.
    await page.click("#send")
    shown = set()
    while await page.locator("#hash-text").text_content() == "":
        assert browser_bytes() - before < 100_000_000
        shown.add(await page.locator("#hash-state").text_content())
    assert len(shown) > 3
    await title(page).to_contain_text("Genuine")
    await expect(page.locator("#facts")).to_contain_text(content_hash)

    with path.open("r+b") as file:
        file.seek(500_000_000)
        file.write(b"x")
    page = await open_page(link(service, uri))
    await page.set_input_files("#file", path)
    await page.click("#send")
    await expect(page.locator("#hash-text")).not_to_be_empty(timeout=120_000)
    await title(page).to_contain_text("Changed or unknown")
    await expect(page.locator("#job-words")).to_contain_text("The file was changed")


async def test_upload_instead(service: Service, open_page: OpenPage) -> None:
    """The page can send the file itself, and then no longer claims that the file stays on the machine."""
    page = await open_page(link(service, service.song_manifest))
    stays = page.locator("text=stays on your machine")
    await expect(stays).to_be_visible()
    await page.check("#upload")
    await expect(stays).to_be_hidden()
    await expect(page.locator(".intro")).to_contain_text("The file is sent to this service")
    await page.uncheck("#upload")
    await expect(stays).to_be_visible()
    await page.check("#upload")
    await verify_file(page, service.song)
    await title(page).to_contain_text("Genuine")
    await expect(page.locator("#facts")).to_contain_text("song.wav")


async def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file on the page."""
    dropped = await page.evaluate_handle(
        "([name, text]) => { const data = new DataTransfer(); data.items.add(new File([text], name)); return data; }",
        [name, content.decode()],
    )
    await page.dispatch_event("body", "drop", {"dataTransfer": dropped})


async def file_field(page: Page) -> dict[str, str]:
    """Return the name, value and description of the file field in the accessibility tree."""
    session = await page.context.new_cdp_session(page)
    await session.send("DOM.enable")
    root = await session.send("DOM.getDocument")
    field = await session.send("DOM.querySelector", {"nodeId": root["root"]["nodeId"], "selector": "#file"})
    tree = await session.send("Accessibility.getPartialAXTree", {"nodeId": field["nodeId"], "fetchRelatives": False})
    node = tree["nodes"][0]
    return {name: str(node.get(name, {}).get("value", "")) for name in ("name", "value", "description")}


async def test_dropped_file(service: Service, open_page: OpenPage) -> None:
    """The page takes a file dropped anywhere, and its field names the file to assistive technology."""
    page = await open_page(service.url)
    await page.set_input_files("#file", {"name": "first.txt", "mimeType": "text/plain", "buffer": b"first"})
    chosen = await file_field(page)
    await drop(page, "abc.txt", b"abc")
    dropped = await file_field(page)
    assert "abc.txt" in dropped["description"]
    # The same as for a chosen file: nothing of the first file is left.
    for part in ("name", "value", "description"):
        assert dropped[part] == chosen[part].replace("first.txt", "abc.txt").replace("5 bytes", "3 bytes")
    assert await page.evaluate("document.querySelector('#file').files[0].name") == "abc.txt"
    await expect(page.locator("#file-name")).to_have_text("abc.txt")
    await expect(page.locator("#hash-text")).to_have_text(sha256(b"abc"))


async def test_without_webassembly(service: Service, open_page: OpenPage) -> None:
    """Where WebAssembly is forbidden, plain JavaScript computes the same hash."""
    page = await open_page("about:blank")

    async def forbid(route: Any) -> None:
        reply = await route.fetch()
        await route.fulfill(response=reply, headers={**reply.headers, "content-security-policy": PAGE_POLICY})

    await page.context.route("**/hash-worker.js", forbid)
    fallback: list[str] = []
    page.context.on("request", lambda request: fallback.append(request.url))
    await page.goto(service.url)
    await page.set_input_files("#file", service.song)
    await expect(page.locator("#hash-text")).to_have_text(sha256(service.song.read_bytes()))
    assert any(url.endswith("/noble-hashes/sha2.js") for url in fallback)


async def test_faults_of_the_form(service: Service, open_page: OpenPage, tmp_path: Path, picture: Picture) -> None:
    """Each missing or wrong field shows its fault next to the field, and the first faulty field gets the focus."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"a")
    page = await open_page(service.url, refusals=True)
    await page.click("#send")
    await expect(page.locator("#file-fault")).to_contain_text("choose the file")
    await expect(page.locator("#manifestURI-fault")).to_contain_text("is missing")
    assert await page.evaluate("document.activeElement.id") == "file"
    await picture(page, "verify-form-faults")
    # A fault found only by the service.
    await page.fill("#manifestURI", "http://10.0.0.1/manifest.json")
    await verify_file(page, path)
    await expect(page.locator("#manifestURI-fault")).not_to_be_empty()
    await expect(page.locator("#manifestURI")).to_have_attribute("aria-invalid", "true")
    await expect(page.locator("#trouble")).to_contain_text("Fix the fields")


async def test_refusals_say_what_to_do(service: Service, open_page: OpenPage, picture: Picture) -> None:
    """Too many requests, an unavailable service and a missing network each give the cause and the next step."""
    page = await open_page(link(service, service.song_manifest), refusals=True)
    await page.set_input_files("#file", service.song)
    trouble = page.locator("#trouble")
    answers: dict[str, Any] = {
        "Try again in 7 seconds": {
            "status": 429,
            "json": {"error": "Too Many Requests"},
            "headers": {"Retry-After": "7"},
        },
        "Try again in 5 seconds": {"status": 503, "json": {"error": "busy"}, "headers": {"Retry-After": "5"}},
        "This request has the number abc": {"status": 500, "json": {"error": "oops", "correlationId": "abc"}},
    }
    for words, answer in answers.items():
        await page.route("**/verify", _answering(answer))
        await page.click("#send")
        await expect(trouble).to_contain_text(words)
        await page.unroute("**/verify")
    await picture(page, "verify-refused")
    await page.context.set_offline(True)
    await page.click("#send")
    await expect(trouble).to_contain_text("This device is offline")
    await page.context.set_offline(False)
    await page.click("#send")
    await title(page).to_contain_text("Genuine")


def _answering(answer: dict[str, Any]) -> Callable[[Route], Awaitable[None]]:
    return lambda route: route.fulfill(**answer)


async def test_a_lost_reply_makes_no_second_job(service: Service, open_page: OpenPage) -> None:
    """The same request sent again after a lost reply finds the first job."""
    page = await open_page(link(service, service.song_manifest), refusals=True)
    await page.set_input_files("#file", service.song)
    made: list[str] = []

    async def lose(route: Any) -> None:
        made.append((await (await route.fetch()).json())["jobId"])
        await route.abort()

    await page.route("**/verify", lose)
    await page.click("#send")
    await expect(page.locator("#trouble")).to_contain_text("cannot be reached")
    await page.unroute("**/verify")
    await page.click("#send")
    await page.wait_for_url(f"**/jobs/{made[0]}")


async def test_links_that_lead_nowhere(service: Service, open_page: OpenPage, picture: Picture) -> None:
    """A link with an unknown or malformed id shows "There is no such verification" and gives 404."""
    for job_id in ("01a20ab7-d307-702e-8fe6-dfee29bc1bf7", "~nonsense"):
        page = await open_page(f"{service.url}/jobs/{job_id}", refusals=True)
        await title(page).to_contain_text("There is no such verification")
        await expect(page.locator("#job-words")).to_contain_text("Ask the sender for the link")
    await picture(page, "verify-unknown-link")
    reply = await page.goto(page.url)
    assert reply is not None
    assert reply.status == 404


async def test_failed_job(service: Service, open_page: OpenPage, tmp_path: Path, picture: Picture) -> None:
    """A failed job gives no verdict; the page gives the reason, and "Try again" starts a new job."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"a")
    uri = service.manifests.publish("broken.json", b"no manifest")
    page = await open_page(link(service, uri))
    await verify_file(page, path)
    await title(page).to_have_text("It could not be found out")
    await expect(page.locator("#job-words")).to_contain_text("This says nothing about the file")
    await expect(page.locator("#job-words")).to_contain_text("What to do: Check the manifest’s URI")
    await picture(page, "verify-no-verdict")
    first = page.url
    await page.click("#actions >> text=Try again")
    await page.wait_for_url(lambda url: "/jobs/" in url and url != first)
    await title(page).to_have_text("It could not be found out")


HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


async def test_hostile_strings_are_text(service: Service, open_page: OpenPage) -> None:
    """HTML in file names, errors, results and links appears as text, and no part runs."""
    with psycopg.connect(service.database_url, autocommit=True) as sql:
        failed = insert(sql, FAILED | {"fileName": HOSTILE, "error": f"manifest.malformed: {HOSTILE}"})
        check = {"code": HOSTILE, "outcome": "failed", "message": HOSTILE}
        result = {
            "status": "FAIL",
            "onchain": {"creator": HOSTILE, "timestamp": 1_700_000_000},
            "recovered": HOSTILE,
            "checks": {"manifestHashOk": True},
            "report": {"checks": [check], "block": {"chainId": HOSTILE, "number": HOSTILE}, "verifiedAt": HOSTILE},
        }
        completed = insert(sql, COMPLETED | {"fileName": HOSTILE, "result": json.dumps(result)})
        strange = insert(sql, COMPLETED | {"result": json.dumps([HOSTILE])})
    for job_id in (failed, completed, strange):
        page = await open_page(f"{service.url}/jobs/{job_id}", refusals=True)
        await expect(page.locator("#raw")).to_be_visible()
        shown = await page.text_content("main") or ""
        assert HOSTILE in shown or json.dumps(HOSTILE)[1:-1] in shown
        assert await page.locator("main img, main script").count() == 0
        assert await page.title() != "taken"
    page = await open_page(
        f"{service.url}/?manifestURI={quote(HOSTILE)}&registry={quote(HOSTILE)}&chainId={quote(HOSTILE)}"
    )
    await expect(page.locator("#manifestURI")).to_have_value(HOSTILE)
    await page.set_input_files("#file", {"name": HOSTILE.replace("/", ""), "mimeType": "text/plain", "buffer": b"x"})
    await expect(page.locator("#file-name")).to_contain_text("<img src=x")
    assert await page.locator("main img").count() == 0


async def test_a_link_that_chooses_its_own_registry(service: Service, open_page: OpenPage) -> None:
    """The page marks a registry from a link as different from the service's registry."""
    page = await open_page(f"{service.url}/?registry=0x{'12' * 20}&chainId=1")
    await expect(page.locator("#registryAddress")).to_have_value("0x" + "12" * 20)
    await expect(page.locator("#registryAddress-hint")).to_contain_text("not this service’s registry")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_accessible(
    service: Service, open_page: OpenPage, violations: Violations, tmp_path: Path, scheme: str
) -> None:
    """axe-core finds no violation on the form, on its faults, while a job runs, and on each kind of end."""
    page = await open_page(service.url, color_scheme=scheme, refusals=True)
    assert await violations(page) == []
    await page.click("#send")
    assert await violations(page) == []
    content = os.urandom(32)
    uri = await service.publish(sha256(content), f"accessible-{scheme}.json")
    with service.manifests.held(f"accessible-{scheme}.json"):
        await page.goto(link(service, uri))
        await page.set_input_files("#file", {"name": "a", "mimeType": "text/plain", "buffer": content})
        await page.click("#send")
        await expect(page.locator("#steps [aria-current=step]")).to_contain_text("Fetching the manifest")
        assert await violations(page) == []
    await title(page).to_contain_text("Genuine")
    await page.click("text=Make a proof")
    await expect(page.locator("text=Download the proof")).to_be_visible()
    await page.click("#raw summary")
    assert await violations(page) == []
    await page.goto(link(service, uri))
    await drop(page, "b.txt", b"b" * 40)
    await expect(page.locator("#hash-text")).not_to_be_empty()
    assert await violations(page) == []
    await page.check("#upload")
    assert await violations(page) == []
    await page.uncheck("#upload")
    await page.fill("#manifestURI", service.song_manifest)
    await page.set_input_files("#file", {"name": "a", "mimeType": "text/plain", "buffer": content})
    await page.click("#send")
    await title(page).to_contain_text("Registered, but this manifest belongs to another file")
    assert await violations(page) == []
    with psycopg.connect(service.database_url, autocommit=True) as sql:
        failed = insert(sql, FAILED)
    await page.goto(f"{service.url}/jobs/{failed}")
    await title(page).to_have_text("It could not be found out")
    assert await violations(page) == []


@pytest.mark.parametrize("width", [360, 2560])
async def test_narrow_and_wide(service: Service, open_page: OpenPage, width: int, picture: Picture) -> None:
    """The page needs no horizontal scrolling at 360 and 2560 pixels."""
    page = await open_page(link(service, service.song_manifest), viewport={"width": width, "height": 900})
    measure = "document.documentElement.scrollWidth <= window.innerWidth"
    assert await page.evaluate(measure)
    await verify_file(page, service.song)
    await title(page).to_contain_text("Genuine")
    await page.click("#raw summary")
    assert await page.evaluate(measure)
    await page.click("#raw summary")
    await picture(page, f"verify-genuine-{width}")


async def test_keyboard_alone(service: Service, open_page: OpenPage) -> None:
    """Tab reaches every control in reading order; Enter sends."""
    page = await open_page(service.url)
    reached = []
    for _ in range(10):
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached == [
        "Skip to the content",
        "iidq",
        "Verify a file",
        "HTTP API",
        "file",
        "manifestURI",
        "registryAddress",
        "chainId",
        "upload",
        "send",
    ]
    await page.set_input_files("#file", service.song)
    await page.focus("#manifestURI")
    await page.keyboard.type(service.song_manifest)
    await page.keyboard.press("Enter")
    await title(page).to_contain_text("Genuine")
    # Back to the entered values, and forward to the verdict.
    await page.go_back()
    await expect(page.locator("#manifestURI")).to_have_value(service.song_manifest)
    await page.go_forward()
    await title(page).to_contain_text("Genuine")


async def test_pages_are_small_and_load_nothing_from_elsewhere(service: Service, open_page: OpenPage) -> None:
    """The page needs under 150 kB for a verification, and each reply has a policy without 'unsafe-inline'."""
    page = await open_page("about:blank")
    replies: list[Response] = []
    page.context.on("response", lambda reply: replies.append(reply))
    await page.goto(link(service, service.song_manifest))
    await verify_file(page, service.song)
    await title(page).to_contain_text("Genuine")
    assert all(reply.url.startswith(service.url) for reply in replies)
    pages = [reply for reply in replies if "/api/" not in reply.url]
    assert len(pages) > 8
    async with httpx.AsyncClient(trust_env=False) as client:
        assert sum([len((await client.get(reply.url)).content) for reply in pages]) < 150_000
    for reply in pages:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert ("unsafe-eval" in policy) == reply.url.endswith("hash-worker.js")


async def test_service_with_a_key(service: Service, open_page: OpenPage, database_url: str, picture: Picture) -> None:
    """Where everything needs the key, the page asks for it, refuses a wrong key and works with the right key."""
    settings = _settings(service, database_url=database_url, api_key="sesame", api_key_scope="all")
    app = create_app(settings)
    async with app.router.lifespan_context(app), serve_locally(app) as url:
        page = await open_page(f"{url}/?manifestURI={service.song_manifest}", refusals=True)
        await expect(page.locator("#key")).to_be_visible()
        await picture(page, "verify-key")
        await page.fill("#key-text", "wrong")
        await page.keyboard.press("Enter")
        await verify_file(page, service.song)
        await expect(page.locator("#key-fault")).to_contain_text("not the service’s")
        await page.fill("#key-text", "sesame")
        await page.keyboard.press("Enter")
        await title(page).to_contain_text("Waiting for its turn")
        await expect(page.locator("#job")).to_have_attribute("data-transport", "live")
        await expect(page.locator("#connection")).to_contain_text("No worker is running")
        await picture(page, "verify-queued")
        await page.reload()
        await title(page).to_contain_text("Waiting for its turn")


async def test_the_link_to_the_description_with_a_key(service: Service, open_page: OpenPage) -> None:
    """Where everything needs the key, the link to the API description opens the description after signing in.

    The key of the tab is enough; the links on the description work, too.
    """
    app = create_app(_settings(service, database_url=NO_DATABASE, api_key="sesame", api_key_scope="all"))
    async with app.router.lifespan_context(app), serve_locally(app) as url:
        page = await open_page(url, refusals=True)
        await page.click("nav >> text=HTTP API")
        await expect(page.locator("#key-text")).to_be_focused()
        await page.fill("#key-text", "wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#key-fault")).to_contain_text("not the service’s API key")
        await page.fill("#key-text", "sesame")
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_contain_text("iidq")
        await expect(page.locator("#submitVerification, article").first).to_be_visible()
        await page.click("text=OpenAPI 3.1")
        assert json.loads(await page.inner_text("body"))["openapi"].startswith("3.1")
        # With the key from the verification page, the description asks for no key again.
        page = await open_page(url, refusals=True)
        await page.fill("#key-text", "sesame")
        await page.keyboard.press("Enter")
        await expect(page.locator("#key")).to_be_hidden()
        await page.click("nav >> text=HTTP API")
        await expect(page.locator("a[href='/api/docs.json']")).to_be_visible()


async def test_no_key_page_violates_accessibility(
    service: Service, open_page: OpenPage, violations: Violations
) -> None:
    """axe-core finds no violation on the pages with the key form, before and after a wrong key."""
    app = create_app(_settings(service, database_url=NO_DATABASE, api_key="sesame", api_key_scope="all"))
    async with app.router.lifespan_context(app), serve_locally(app) as url:
        for path in ("/", "/api/docs"):
            page = await open_page(f"{url}{path}", refusals=True)
            assert await violations(page) == []
        await page.fill("#key-text", "wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#key-fault")).not_to_be_empty()
        assert await violations(page) == []


async def test_times_name_their_zone(service: Service, open_page: OpenPage) -> None:
    """A time is in the reader's time zone, names the zone and has an exact machine-readable value."""
    with psycopg.connect(service.database_url, autocommit=True) as sql:
        moment = "2026-01-02T03:04:05.678Z"
        job_id = insert(sql, FAILED | {"createdAt": moment})
    page = await open_page(f"{service.url}/jobs/{job_id}", timezone_id="Asia/Kolkata")
    asked = page.locator("#facts time")
    await expect(asked).to_have_text("2 Jan 2026, 08:34:05 GMT+5:30")
    await expect(asked).to_have_attribute("datetime", moment)


async def test_without_a_queue(service: Service, open_page: OpenPage) -> None:
    """Without Postgres the verdict comes at once, and the page says that the verdict has no link."""
    content = os.urandom(32)
    uri = await service.publish(sha256(content), "at-once.json")
    app = create_app(_settings(service, database_url=NO_DATABASE))
    async with app.router.lifespan_context(app), serve_locally(app) as url:
        page = await open_page(f"{url}/?manifestURI={uri}")
        await page.set_input_files("#file", {"name": "a", "mimeType": "text/plain", "buffer": content})
        await page.click("#send")
        await title(page).to_contain_text("Genuine: registered by")
        await expect(page.locator("#job-words")).to_contain_text("This page has no link")
        await page.click("text=Make a proof")
        await expect(page.locator("text=Download the proof")).to_be_visible()


def _settings(service: Service, **more: Any) -> Settings:
    return Settings(
        _env_file=None,
        rpc_url=service.rpc_url,
        default_registry=ChainAccount(31337, service.registry),
        fetch_allow_private=("127.0.0.1",),
        **{**NO_LIMITS, **more},
    )
