"""Runs a command that owns processes and files: the first signal to end unwinds it, later ones are let pass."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

INTERRUPTED = 130


def run_interruptible(command: Coroutine[Any, Any, int], *, interrupted_code: int = INTERRUPTED) -> int:
    """Run ``command`` to its exit code; when interrupted, unwind it in order and return ``interrupted_code``."""

    async def run() -> int:
        task = asyncio.current_task()
        assert task is not None
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            # A second Ctrl-C in the middle of the clean-up would leave processes and files behind.
            if not interrupted:
                interrupted = True
                task.cancel()

        numbers = [signal.SIGINT, signal.SIGTERM]
        # A closed terminal; nohup ignores it, and means it.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, interrupt)
        try:
            return await command
        except asyncio.CancelledError:
            if not interrupted:
                raise
            return interrupted_code

    return asyncio.run(run())
