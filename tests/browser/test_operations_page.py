"""Test the operations page in a real browser: views, actions and access."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
import pytest
from playwright.async_api import Browser, Page, expect
from psycopg.types.json import Jsonb

from iidq.embedded.endpoint import serve_locally
from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.server.http_protocol import bounded_http
from tests.browser.conftest import OpenPage, Service
from tests.eventually import eventually
from tests.job_rows import CANCELLED, COMPLETED, FAILED, PROCESSING, Sql, insert, read, statuses
from tests.web.serving import NO_DATABASE, NO_LIMITS

Picture = Callable[[Page, str], Awaitable[None]]
Violations = Callable[[Page], Awaitable[list[str]]]
Serve = Callable[..., AbstractAsyncContextManager[str]]

KEY = "open sesame"
HOSTILE = '"><img src=x onerror="window.hit=1"><script>window.hit=2</script>'
REPORT = {
    "conclusion": {"code": "otherSigner", "message": f"signed by somebody else {HOSTILE}"},
    "checks": [
        {"code": "content.hashMatchesManifest", "outcome": "passed", "message": "The file is the one that was signed"},
        {"code": "registry.creator", "outcome": "failed", "message": f"Signed by somebody else {HOSTILE}"},
        {"code": "registry.transaction", "outcome": "notChecked", "message": "Only proofs search for it"},
    ],
    "sources": [{"what": "manifest", "url": "https://ipfs.example", "outcome": "used", "message": "510 bytes"}],
}


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the operator."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def serve(database_url: str, chromium: Browser) -> Serve:
    """Serve an API on the test's database and return the URL of the page. Close all pages before the API stops."""

    @asynccontextmanager
    async def serve_(**settings: Any) -> AsyncIterator[str]:
        defaults: dict[str, Any] = {"database_url": database_url, "rpc_url": "http://rpc.invalid/", **NO_LIMITS}
        known = Settings(_env_file=None, **{**defaults, **settings})
        app = create_app(known)
        async with app.router.lifespan_context(app), serve_locally(app, http=bounded_http(known)) as url:
            try:
                yield f"{url}/admin/queues"
            finally:
                for context in chromium.contexts:
                    await context.close()

    return serve_


def fill(sql: psycopg.Connection[Any]) -> None:
    """Fill the queue with jobs in every state, a live worker and one hour of counts."""
    hour = Sql("now() - generate_series * interval '50 seconds'")
    done = Sql("now() - generate_series * interval '50 seconds' + interval '2 seconds'")
    started = Sql("now() - generate_series * interval '50 seconds' + mod(generate_series, 7) * interval '90 ms'")
    insert(sql, COMPLETED, copies=70, createdAt=hour, runAt=hour, startedAt=started, completedAt=done, attempt=1,
           fileName="song.wav", result=Jsonb({"status": "OK"}))  # fmt: skip
    for error in ("manifest.not_found: no gateway has it", "rpc.unavailable: https://rpc.example answers 503"):
        insert(sql, FAILED, copies=9, error=error, attempt=3, retryCount=2, startedAt=Sql("now()"),
               errors=Jsonb([{"attempt": 1, "at": "2026-01-02T03:04:05.678901+00:00", "error": error}]))  # fmt: skip
    insert(sql, PROCESSING, copies=2, workerId="host-a:4711:8c1f", type="proof", progress=50)
    insert(sql, copies=12)
    insert(sql, copies=3, ready=False, runAt=Sql("now() + interval '1 minute'"))
    insert(sql, CANCELLED)
    sql.execute(
        'INSERT INTO iidq_queue_worker ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil")'
        " VALUES ('host-a:4711:8c1f', 'host-a', 4711, '0.1.0', 3, 2, true, now() + interval '1 hour')"
    )
    sql.execute(
        "INSERT INTO iidq_queue_count (at, enqueued, succeeded, gave_up)"
        " SELECT now() - minute * interval '1 minute', 60 + 30 * sin(minute / 6.0), 55 + 28 * sin(minute / 6.0),"
        " minute % 5 FROM generate_series(1, 59) AS minute"
    )


def counted(page: Page, state: str) -> Any:
    return expect(page.locator(f"[data-count={state}]"))


async def test_the_overview_is_live(
    serve: Serve, sql: psycopg.Connection[Any], open_page: OpenPage, picture: Picture
) -> None:
    """Counts, ages, charts, workers, parts and failures update without a reload, and the layout does not move."""
    fill(sql)
    async with serve() as url:
        page = await open_page(url)
        await counted(page, "waiting").to_have_text("12")
        await expect(page.locator("#open")).to_contain_text("no API_KEY is set")
        await expect(page.locator("#workers")).to_contain_text("host-a:4711:8c1f")
        await expect(page.locator("#workers")).to_contain_text("2 / 3")
        await expect(page.locator("#parts")).to_contain_text("2 of 3 in use")
        await expect(page.locator("#parts")).to_contain_text("1 of 1 workers are woken by new jobs")
        await expect(page.locator("#causes tr")).to_have_count(2)
        for chart in ("rates", "waited", "ran"):
            assert await page.locator(f"#chart-{chart} path.line.first").last.get_attribute("d")
        await page.click("#chart-rates summary")
        await expect(page.locator("#chart-rates tbody tr")).to_have_count(59)
        await page.click("#chart-rates summary")
        await picture(page, "operations-overview")
        places = "[...document.querySelectorAll('.tile, .chart, .sheet, #pause')].map(e => e.getBoundingClientRect().x)"
        before = await page.evaluate(places)
        insert(sql, copies=1234)
        await counted(page, "waiting").to_have_text("1,246")
        assert await page.evaluate(places) == before
        sql.execute("DELETE FROM iidq_queue_worker")
        await expect(page.locator("#no-workers")).to_be_visible()
        await expect(page.locator("#state")).to_have_text("No workers")


async def test_jobs_that_are_being_stored_are_not_running(
    serve: Serve, sql: psycopg.Connection[Any], open_page: OpenPage
) -> None:
    """The page never shows more used slots than a worker has, even if the worker holds more jobs."""
    fill(sql)
    insert(sql, PROCESSING, copies=4, workerId="host-a:4711:8c1f")
    async with serve() as url:
        page = await open_page(url)
        await counted(page, "active").to_have_text("6")
        await expect(page.locator("#parts")).to_contain_text("3 of 3 in use")
        cells = page.locator("#workers tr").first.locator("td")
        await expect(cells.nth(1)).to_have_text("3 / 3")
        await expect(cells.nth(2)).to_have_text("6")


async def test_times_name_their_zone(serve: Serve, sql: psycopg.Connection[Any], open_page: OpenPage) -> None:
    """Each time in every view is in the reader's time zone, names the zone and has an exact machine-readable value."""
    fill(sql)
    sql.execute("SELECT pause_queue('a reason')")
    moment = "2026-01-02T03:04:05.678Z"
    errors = Jsonb([{"attempt": 1, "at": moment, "error": "x"}])
    job_id = insert(sql, FAILED, createdAt=moment, startedAt=moment, completedAt=moment, errors=errors)
    async with serve() as url:
        page = await open_page(url, timezone_id="Asia/Kolkata")
        await page.click("#chart-rates summary")
        await expect(page.locator("#chart-rates tbody time").first).to_have_text(re.compile(r"^\d\d:\d\d GMT\+5:30$"))
        for place in ("#as-of time", "#paused-since time"):
            await expect(page.locator(place)).to_have_text(re.compile(r", \d\d:\d\d:\d\d GMT\+5:30$"))
        for path in ("", "/jobs", f"/jobs/{job_id}"):
            await page.goto(f"{url}{path}")
            await expect(page.locator("#as-of time")).to_be_visible()
            await expect(page.locator("main time:visible").first).to_be_visible()
            for time in await page.locator("time").all():
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", await time.get_attribute("datetime") or "")
                assert (await time.get_attribute("title") or "").endswith(" GMT+5:30")
        await expect(page.locator(".timeline time").first).to_have_text("2 Jan 2026, 08:34:05 GMT+5:30")
        # No time is outside a ``time`` element.
        outside = """[...document.querySelectorAll('main, footer')].map(root => {
          const copy = root.cloneNode(true);
          for (const each of copy.querySelectorAll('time, #job-raw')) each.remove();
          return copy.textContent;
        }).join()"""
        assert not re.search(r"\d:\d\d", await page.evaluate(outside))


async def test_lists_tabs_pages_and_search(
    serve: Serve, sql: psycopg.Connection[Any], open_page: OpenPage, picture: Picture
) -> None:
    """The job list has tabs by state with counts, pages in both directions and a search; the URL holds all of these."""
    fill(sql)
    one = insert(sql, COMPLETED, contentHash="0x" + "7f" * 32, manifestUri="ipfs://QmRare/m", fileName="rare.wav")
    async with serve() as url:
        page = await open_page(url)
        await page.click("nav >> text=Jobs")
        rows = page.locator("#rows tr")
        await expect(rows).to_have_count(50)
        await expect(page.locator("#tabs a", has_text="Completed")).to_contain_text("71")
        await page.click("#tabs >> text=Failed")
        await expect(rows).to_have_count(18)
        await picture(page, "operations-jobs")
        await page.click("#tabs >> text=Completed")
        await page.click("#next")
        await expect(rows).to_have_count(21)
        await page.reload()
        await expect(rows).to_have_count(21)
        await page.click("#first")
        await expect(rows).to_have_count(50)
        await page.go_back()
        await expect(rows).to_have_count(21)
        await page.click("#tabs >> text=All")
        for sought in (str(one), "0x" + "7F" * 32, "QmRare"):
            await page.fill("#sought", sought)
            await page.keyboard.press("Enter")
            await expect(rows).to_have_count(1)
            await expect(rows).to_contain_text("rare.wav")
        await page.fill("#sought", "0x" + "00" * 20)
        await page.click("#search button")
        await expect(page.locator("#none")).to_have_text("No job here.")
        await page.goto(f"{url}/jobs?search={one}")
        await page.click("text=rare.wav")
        await expect(page.locator("h1#job-title")).to_have_text("rare.wav")
        await expect(page.locator("#job-title")).to_be_focused()


async def test_the_list_is_live(serve: Serve, sql: psycopg.Connection[Any], open_page: OpenPage) -> None:
    """A new failure appears in the list without a click."""
    async with serve() as url:
        page = await open_page(f"{url}/jobs?state=failed")
        await expect(page.locator("#none")).to_have_text("No job here.")
        insert(sql, FAILED, fileName="new.wav")
        await expect(page.locator("#rows")).to_contain_text("new.wav")


async def test_a_jobs_page(serve: Serve, sql: psycopg.Connection[Any], open_page: OpenPage, picture: Picture) -> None:
    """A job page shows attempts with times and errors, the report, the worker and the lease, live until the end."""
    earlier = [{"attempt": 1, "at": "2026-01-02T03:04:05.678901+00:00", "error": "rpc.unavailable: down"}]
    job_id = insert(sql, PROCESSING, fileName="song.wav", errors=Jsonb(earlier), attempt=2)
    async with serve() as url:
        page = await open_page(f"{url}/jobs/{job_id}", refusals=True)
        timeline = page.locator(".timeline")
        for text in (
            "Submitted",
            "Attempt 1 failed",
            "rpc.unavailable: down",
            "Attempt 2 began",
            "Running",
            "somebody",
        ):
            await expect(timeline).to_contain_text(text)
        sql.execute(
            'UPDATE "VerificationJob" SET status = \'completed\', result = %s, progress = 100, "completedAt" = now(),'
            ' "workerId" = NULL, "leaseUntil" = NULL WHERE id = %s',
            [Jsonb({"status": "FAIL", "report": REPORT}), job_id],
        )
        await expect(page.locator("#job")).to_contain_text(f"Verdict: FAIL: signed by somebody else {HOSTILE}")
        await expect(page.locator("#job")).to_contain_text("not checked")
        await picture(page, "operations-job")
        await page.goto(f"{url}/jobs/01234567-89ab-7def-8123-456789abcdef")
        await expect(page.locator("#job-title")).to_have_text("No job has this id")


async def test_changes(serve: Serve, sql: psycopg.Connection[Any], open_page: OpenPage, picture: Picture) -> None:
    """Cancel, retry of a job or a group, pause with a reason and resume work by mouse or keyboard.

    The page asks before a change where needed, and confirms each change.
    """
    fill(sql)
    failed = insert(sql, FAILED, fileName="once.wav", error="manifest.missing: 404")
    waiting = insert(sql, fileName="wait.wav", priority=9)
    async with serve() as url:
        page = await open_page(f"{url}/jobs?state=waiting")
        said = page.locator("#said")
        row = page.locator(f"tr[data-id='{waiting}']")
        await row.get_by_role("button").click()
        await page.click("dialog >> text=Not now")
        assert read(sql, waiting)["status"] == "queued"
        await row.get_by_role("button").click()
        await picture(page, "operations-cancel")
        await page.keyboard.press("Enter")
        await expect(said).to_contain_text("is cancelled")
        assert read(sql, waiting)["status"] == "cancelled"
        await expect(row).to_have_count(0)
        await page.goto(f"{url}/jobs/{failed}")
        await page.click("#job-retry")
        await expect(said).to_contain_text("back in line")
        await expect(page.locator("#job .head")).to_contain_text("Waiting")
        await page.click("nav >> text=Overview")
        await page.click("[aria-label='Retry all failures of rpc.unavailable']")
        await page.click("dialog >> text=Retry them")
        await expect(said).to_have_text("9 jobs of “rpc.unavailable” are back in line.")
        assert statuses(sql)["failed"] == 9
        await page.focus("#pause")
        await page.keyboard.press("Enter")
        await page.keyboard.type("gateway maintenance")
        await page.keyboard.press("Enter")
        await expect(page.locator("#paused")).to_contain_text("gateway maintenance")
        await expect(page.locator("#state")).to_have_text("Paused")
        assert sql.execute("SELECT state, pause_reason FROM queue_health").fetchone() == (
            "paused",
            "gateway maintenance",
        )
        await page.click("#pause")
        await expect(page.locator("#paused")).to_be_hidden()
        assert sql.execute("SELECT pause_reason FROM queue_health").fetchone() == (None,)


async def test_a_real_worker_obeys(service: Service, open_page: OpenPage) -> None:
    """A job submitted during a pause waits. After resume the worker takes the job, and the page follows to the end."""
    page = await open_page(f"{service.url}/admin/queues")
    await expect(page.locator("#state")).to_have_text("Idle")
    with psycopg.connect(service.database_url, autocommit=True) as sql:
        await page.click("#pause")
        await page.click("dialog >> button.main")
        try:
            await expect(page.locator("#state")).to_have_text("Paused")
            job_id = insert(sql, manifestUri=service.song_manifest, registryAddress=service.registry)
            await page.goto(f"{service.url}/admin/queues/jobs/{job_id}")
            await expect(page.locator(".timeline")).to_contain_text("Waits in line")
        finally:
            await page.click("#pause")
        await eventually(lambda: read(sql, job_id)["status"] == "completed")
    await expect(page.locator("#job")).to_contain_text("Verdict: FAIL")


async def test_signing_in_and_out(serve: Serve, open_page: OpenPage, picture: Picture, violations: Violations) -> None:
    """The page shows nothing without the key, and reports a wrong key. A right key survives a reload until sign-out."""
    async with serve(api_key=KEY, api_key_scope="all") as url:
        page = await open_page(f"{url}/jobs", refusals=True)
        await expect(page.locator("#key")).to_be_visible()
        await expect(page.locator("#jobs")).to_be_hidden()
        await picture(page, "operations-sign-in")
        await page.fill("#key", "open barley")
        await page.keyboard.press("Enter")
        await expect(page.locator("#key-fault")).to_contain_text("not the service’s API key")
        assert await violations(page) == []
        await page.fill("#key", KEY)
        await page.keyboard.press("Enter")
        await expect(page.locator("#none")).to_have_text("No job here.")
        await page.reload()
        await expect(page.locator("#none")).to_have_text("No job here.")
        assert await page.evaluate("document.cookie") == ""
        await page.click("#pause")
        await page.click("dialog >> button.main")
        await expect(page.locator("#state")).to_have_text("Paused")
        # The cookie expires in the middle: the page asks for the key again.
        await page.context.clear_cookies()
        await expect(page.locator("#key")).to_be_visible()
        await page.fill("#key", KEY)
        await page.keyboard.press("Enter")
        await page.click("#sign-out")
        await expect(page.locator("#key")).to_be_visible()
        await page.reload()
        await expect(page.locator("#key")).to_be_visible()


async def test_hostile_text_is_shown_as_text(serve: Serve, sql: psycopg.Connection[Any], open_page: OpenPage) -> None:
    """Hostile names, manifests, errors, causes, workers, reasons and reports appear as text and never run."""
    failed = insert(sql, FAILED, fileName=HOSTILE, manifestUri=f"https://x.example/{HOSTILE}", error=f"{HOSTILE}: bad")
    done = insert(sql, COMPLETED, fileName=HOSTILE, result=Jsonb({"status": HOSTILE, "report": REPORT}))
    insert(sql, PROCESSING, workerId=HOSTILE)
    sql.execute("SELECT pause_queue(%s)", [HOSTILE])
    async with serve() as url:
        page = await open_page(url)
        for place in ("#causes", "#workers", "#paused-reason"):
            await expect(page.locator(place)).to_contain_text(HOSTILE)
        await page.click("#causes a >> nth=0")
        await expect(page.locator("#filter-text")).to_have_text(f"Failed: {HOSTILE}")
        await expect(page.locator("#rows tr")).to_have_count(1)
        await expect(page.locator("#rows")).to_contain_text(f"{HOSTILE}: bad")
        for job_id in (failed, done):
            await page.goto(f"{url}/jobs/{job_id}")
            await expect(page.locator("#job-title")).to_have_text(HOSTILE)
        await expect(page.locator("#job")).to_contain_text(f"Signed by somebody else {HOSTILE}")
        assert await page.evaluate("window.hit") is None
        assert await page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_accessible(
    serve: Serve,
    sql: psycopg.Connection[Any],
    open_page: OpenPage,
    violations: Violations,
    picture: Picture,
    scheme: str,
) -> None:
    """axe-core finds no violation on any view, notice, table or dialog, and no view is wider than a phone."""
    fill(sql)
    failed = insert(sql, FAILED, errors=Jsonb([{"attempt": 1, "at": "2026-01-02T03:04:05+00:00", "error": "x"}]))
    done = insert(sql, COMPLETED, result=Jsonb({"status": "WARN", "report": REPORT}), startedAt=Sql("now()"))
    sql.execute("SELECT pause_queue('a reason')")
    async with serve() as url:
        page = await open_page(url, color_scheme=scheme)
        await expect(page.locator("#causes tr")).to_have_count(3)
        await page.click("#chart-ran summary")
        assert await violations(page) == []
        if scheme == "dark":
            await page.click("#chart-ran summary")
            await picture(page, "operations-overview-dark")
        await page.goto(f"{url}/jobs")
        await expect(page.locator("#rows tr")).to_have_count(50)
        assert await violations(page) == []
        await page.click("#rows >> text=Cancel >> nth=0")
        assert await violations(page) == []
        for job_id in (failed, done):
            await page.goto(f"{url}/jobs/{job_id}")
            await expect(page.locator("#job-raw")).to_be_visible()
            assert await violations(page) == []
        for width in (360, 2560):
            await page.set_viewport_size({"width": width, "height": 800})
            for path in ("", "/jobs", f"/jobs/{done}"):
                await page.goto(f"{url}{path}")
                await expect(page.locator("#as-of")).to_contain_text("as of")
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                if scheme == "light" and width == 360 and not path:
                    await picture(page, "operations-phone")


async def test_without_a_database_the_page_says_so(serve: Serve, open_page: OpenPage) -> None:
    """The page reports an unreadable queue, and tries again."""
    async with serve(database_url=NO_DATABASE) as url:
        page = await open_page(url)
        await expect(page.locator("#trouble")).to_contain_text("The queue cannot be read")
        await expect(page.locator("#trouble")).to_contain_text("tries again")
