"""Test refusals by Postgres: no synchronous fallback, and a remedy for operators."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from tests.job_rows import CONTENT_HASH, MANIFEST_URI, REGISTRY_ADDRESS
from tests.restricted_role import RestrictedRole, restricted_role
from tests.web.serving import JOBS, ServeApi

FIELDS = {"registryAddress": REGISTRY_ADDRESS, "manifestURI": MANIFEST_URI, "contentHash": CONTENT_HASH}


@pytest.fixture
def role(database_url: str) -> Iterator[RestrictedRole]:
    """Create a role for the API."""
    with restricted_role(database_url) as role:
        yield role


async def test_a_lacking_right_is_503_and_is_named_to_operators(serve_api: ServeApi, role: RestrictedRole) -> None:
    """A missing right gives 503 without details; the log, once, and /readyz name object and right."""
    role.revoke("INSERT", "VerificationJob")
    named = f"role {role.name} lacks INSERT on table VerificationJob: "
    with capture_logs() as logged:
        async with serve_api(database_url=role.url) as api:
            for _ in range(2):
                refused = await api.post(f"{JOBS}/verify", json=FIELDS)
                assert refused.status_code == 503
                assert refused.headers["retry-after"]
                assert refused.json().keys() == {"error", "code", "correlationId"}
                assert refused.json()["code"] == "database.refused"
                assert "VerificationJob" not in refused.text
                assert role.name not in refused.text
            ready = await api.get("/readyz")
            assert (ready.status_code, ready.json()["status"], ready.json()["database"]) == (200, "degraded", "ok")
            assert [fault for fault in ready.json()["faults"] if fault.startswith(named)]
            role.grant("INSERT", "VerificationJob")
            assert (await api.post(f"{JOBS}/verify", json=FIELDS)).json()["mode"] == "async"
    [line] = [line for line in logged if line["event"] == "database.refuses"]
    assert named in line["error"]


async def test_a_right_that_no_request_has_needed_yet_is_named(serve_api: ServeApi, role: RestrictedRole) -> None:
    """/readyz reads the catalogs, even for the rights of workers; a role with all rights is ready."""
    async with serve_api(database_url=role.url) as api:
        ready = (await api.get("/readyz")).json()
        assert ready["status"] == "ready"
        assert "faults" not in ready
    role.revoke("UPDATE", "iidq_queue_worker")
    async with serve_api(database_url=role.url) as api:
        [fault] = (await api.get("/readyz")).json()["faults"]
        assert fault.startswith(f"role {role.name} lacks UPDATE on table iidq_queue_worker: ")


@pytest.mark.parametrize("part", ["database", "role"])
async def test_a_refused_login_is_no_outage(serve_api: ServeApi, database_url: str, part: str) -> None:
    """With a missing database or role no submission is processed synchronously; /readyz gives 503 with the cause."""
    head, at, tail = database_url.rpartition("@")
    scheme = head.partition("://")[0]
    url = f"{scheme}://no_such_role@{tail}" if part == "role" else f"{head}{at}/no_such?{tail.partition('?')[2]}"
    async with serve_api(database_url=url) as api:
        for _ in range(2):
            refused = await api.post(f"{JOBS}/verify", json=FIELDS)
            assert (refused.status_code, refused.json()["code"]) == (503, "database.refused")
        assert (await api.get(f"{JOBS}/stats")).json()["available"] is False
        ready = await api.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["database"]) == (503, "unavailable", "refused")
        [fault] = ready.json()["faults"]
        assert "DATABASE_URL" in fault
        assert (await api.get("/api/health")).json()["database"] == "refused"
