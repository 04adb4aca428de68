"""The real worker program with a crashing work loop, or with an endless task or thread for ``HANG``."""

import asyncio
import contextlib
import os
import sys
import threading

from iidq import worker
from iidq.concurrency import background
from iidq.queue.processing.loop import WorkLoop


async def fail(*_: object) -> None:
    """Raise as a bug does."""
    raise LookupError("on purpose")


async def hang(*_: object) -> None:
    """Hang in a thread or in a task, and ignore cancellation."""
    print("hangs now", flush=True)
    if os.environ["HANG"] == "thread":
        await asyncio.to_thread(threading.Event().wait)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


if __name__ == "__main__":
    # A tenth of the usual time, for short tests.
    vars(worker)["END_SECONDS"] = background.END_SECONDS / 10
    if os.environ.get("HANG"):
        WorkLoop._hear_relay = hang  # type: ignore[method-assign,assignment]
    else:
        WorkLoop._sweep = fail  # type: ignore[method-assign,assignment]
    sys.exit(worker.main())
