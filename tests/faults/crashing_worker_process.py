"""The real worker program, in which the work loop fails by a bug, or with ``HANG`` something will not end."""

import asyncio
import contextlib
import os
import sys
import threading

from iidq import worker
from iidq.concurrency import background
from iidq.queue.processing.loop import WorkLoop


async def fail(*_: object) -> None:
    """What a bug does."""
    raise LookupError("on purpose")


async def hang(*_: object) -> None:
    """What nothing can cancel; in a thread, or as a task."""
    print("hangs now", flush=True)
    if os.environ["HANG"] == "thread":
        await asyncio.to_thread(threading.Event().wait)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


if __name__ == "__main__":
    # The tests' patience is short.
    vars(worker)["END_SECONDS"] = background.END_SECONDS / 10
    if os.environ.get("HANG"):
        WorkLoop._hear_relay = hang  # type: ignore[method-assign,assignment]
    else:
        WorkLoop._sweep = fail  # type: ignore[method-assign,assignment]
    sys.exit(worker.main())
