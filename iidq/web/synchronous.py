"""Verification inside the request, without queue and database."""

import asyncio
import importlib
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

from iidq.errors import AttemptTimedOut, TemporaryFault
from iidq.observability import metrics
from iidq.queue.job import JobType
from iidq.redis.accelerator import Accelerator
from iidq.settings import Settings
from iidq.web.request.submission import Submission

MAX_AT_ONCE: Final = 32
"""Runs at a time in one process; further requests receive 503."""


class SynchronousVerification:
    """Run verifications under a bound and a deadline; the first run loads and opens the verifier."""

    def __init__(self, settings: Settings, accelerator: Accelerator) -> None:
        self._settings = settings
        self._accelerator = accelerator
        self._opening = asyncio.Lock()
        self._verifier: Any = None
        self._resources = AsyncExitStack()
        self._running = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def run(self, job_type: JobType, submission: Submission) -> dict[str, Any]:
        """Return the result as a worker would store it.

        Raise :class:`PermanentFault` or :class:`TemporaryFault`, the latter also at ``MAX_AT_ONCE`` runs or after the
        deadline of an attempt (``JOB_TIMEOUT_SECONDS``).
        """
        if self._running >= MAX_AT_ONCE:
            metrics.synchronous_run("refused")
            raise TemporaryFault("Too many verifications are running; try again", code="service.busy")
        self._running += 1
        completed = False
        try:
            async with asyncio.timeout(self._settings.job_timeout_seconds):
                result = await self._run(job_type, submission)
            completed = True
            return result
        except TimeoutError:
            raise AttemptTimedOut("The verification took too long; try again") from None
        finally:
            self._running -= 1
            metrics.synchronous_run("completed" if completed else "failed")

    async def _run(self, job_type: JobType, submission: Submission) -> dict[str, Any]:
        await self._open()
        result: dict[str, Any] = await self._verifier.run(job_type, submission.subject)
        return result

    async def _open(self) -> None:
        async with self._opening:
            if self._verifier is None:
                # Loaded late: it is slow, and a process that only queues jobs never needs it.
                verifier = await asyncio.to_thread(importlib.import_module, "iidq.provenance.verifier")
                self._verifier = await self._resources.enter_async_context(
                    verifier.open_verifier(self._settings, self._accelerator.manifests, self._accelerator.verdicts)
                )
