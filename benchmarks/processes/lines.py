"""The other end of ``benchmarks.child``: READY, wait for ``go``, progress, RESULT."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

_TELL_SECONDS = 0.01


class Lines:
    """Standard input and output of a benchmark program."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read)

    async def ready(self, what: object = "") -> None:
        """Write READY; return after ``go``."""
        _say(f"READY {what}")
        await self._heard.get()

    async def tell(self, count: Callable[[], int]) -> None:
        """Write the count whenever the count has grown, until cancelled."""
        told = 0
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            if (now := count()) != told:
                told = now
                _say(f"C {told}")

    async def closed(self) -> None:
        """Return when standard input is closed."""
        while await self._heard.get():
            pass

    def result(self, **values: Any) -> None:
        """Write the result."""
        _say(f"RESULT {json.dumps(values)}")

    def _read(self) -> None:
        data = os.read(sys.stdin.fileno(), 1000)
        if not data:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        self._heard.put_nowait(data)


def run(program: Coroutine[Any, Any, None]) -> None:
    """Run the program as iidq's processes run: on uvloop if installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(program)
    else:
        uvloop.run(program)


def _say(line: str) -> None:
    print(line, flush=True)
