"""The API as an ASGI app: what it opens, its routes, its layers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware

from iidq.database import open_database
from iidq.logs import configure_logging
from iidq.queue.batching import open_enqueuer
from iidq.settings import Settings, load_settings
from iidq.web import control, health, jobs, legacy
from iidq.web.access import ApiKey, KeyEverywhere
from iidq.web.exchange import Exchanges
from iidq.web.replies import EXCEPTION_HANDLERS
from iidq.web.service import Service
from iidq.web.submission import SubmissionRules
from iidq.web.synchronous import SynchronousVerification
from iidq.web.unread_bodies import UnreadBodies

POOL_SIZE: Final = 8
"""Connections of one API process; submissions share one statement, so readers take most of them."""

STATEMENT_TIMEOUT_SECONDS: Final = 10.0
"""Bounds what one reader can cost, above all a deep ``offset``."""


def create_app(settings: Settings) -> Starlette:
    """The API under these settings; the start succeeds without Postgres, too.

    Raises :class:`SettingsFault` for an item of ``FETCH_ALLOW_PRIVATE`` that is neither host nor CIDR.
    """
    rules = SubmissionRules(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(
                open_database(settings, pool_size=POOL_SIZE, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
            )
            enqueuer = await stack.enter_async_context(open_enqueuer(database, settings))
            synchronous = await stack.enter_async_context(SynchronousVerification(settings))
            app.state.service = Service(settings, rules, database, enqueuer, synchronous)
            yield

    layers = [Middleware(Exchanges), Middleware(UnreadBodies)]
    if settings.api_key and settings.api_key_scope == "all":
        layers.append(Middleware(KeyEverywhere, ApiKey(settings)))
    app = Starlette(
        routes=[*control.ROUTES, *jobs.ROUTES, *legacy.ROUTES, *health.ROUTES],
        middleware=layers,
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    # A redirect to another spelling would make clients send their upload twice.
    app.router.redirect_slashes = False
    return app


def app_from_environment() -> Starlette:
    """``uvicorn --factory iidq.web.app:app_from_environment``."""
    settings = load_settings("database_url", "rpc_url")
    configure_logging(settings.log_level, settings.log_format)
    return create_app(settings)
