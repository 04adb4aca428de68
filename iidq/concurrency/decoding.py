"""Long decoding off the event loop, on one thread.

Decoders hold the interpreter's lock. Several threads would finish no sooner, and each would delay the event loop. The
limits on the decoded input bound the work, and with it the delay of a shutdown.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

_THREAD: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="iidq-decoding")


async def decode_in_thread(decode: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Run ``decode`` on the thread; return its result or raise its error."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, lambda: decode(*args, **kwargs))
