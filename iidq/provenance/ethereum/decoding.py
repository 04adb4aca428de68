"""Long decoding beside the event loop, on one thread.

Decoders hold the interpreter's lock. Several of them at once would finish no sooner and make the event loop wait for
each in turn. Each piece of work is bounded by its own limits, so that the thread never outlives a shutdown for long.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

_THREAD: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="iidq-decoding")


async def decode_beside(decode: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Return what ``decode`` returns, or raise what it raises, after running it on the thread."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, lambda: decode(*args, **kwargs))
