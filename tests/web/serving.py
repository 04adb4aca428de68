"""What the tests of the API share: how one is started, and where no database is."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx

ServeApi = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
"""``serve_api(**settings)``: a client of an API that runs under these settings."""

JOBS = "/api/verification-jobs"

NO_DATABASE = "postgresql://iidq@127.0.0.1:9/none"
"""Nobody listens on the discard port: the connection is refused at once."""

NO_LIMITS = {"rate_limit_submit_per_minute": 0, "rate_limit_read_per_minute": 0}
"""All tests come from one address."""
