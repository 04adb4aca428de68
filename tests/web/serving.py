"""Shared parts of the API's tests."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
from starlette.routing import Route

from iidq.queue.identifiers import new_job_id
from iidq.settings import Settings
from iidq.web.app import create_app

ServeApi = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
"""``serve_api(**settings)``: a client of an API with these settings."""

JOBS = "/api/verification-jobs"

NO_DATABASE = "postgresql://iidq@127.0.0.1:9/none"
"""No server listens on the discard port: a connection is refused at once."""

NO_LIMITS = {"rate_limit_submit_per_minute": 0, "rate_limit_read_per_minute": 0}
"""Settings without rate limits, because all tests use the same address."""


def endpoints() -> list[tuple[str, str]]:
    """Return method and path of each endpoint."""
    app = create_app(Settings(_env_file=None, database_url=NO_DATABASE, rpc_url="http://rpc.invalid/"))
    found = set()
    for route in app.routes:
        assert isinstance(route, Route)
        path = route.path.replace("{name:path}", "shared/style.css").replace("{digest}", "x")
        found |= {(method, path.replace("{job_id}", str(new_job_id()))) for method in route.methods or ()}
    return sorted(found)
