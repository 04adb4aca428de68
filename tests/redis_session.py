"""``IIDQ_TEST_REDIS=steady`` or ``chaos``: every service under test has a Redis, one per test process.

In chaos Redis is killed, frozen, flushed, filled and started empty, at random and without end: all promises of the
tests must hold. Unset, tests have only their own Redis.
"""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tests.redis_server import RedisServer

VARIABLE: Final = "IIDQ_TEST_REDIS"
_LONGEST_PAUSE_SECONDS: Final = 0.6


@contextmanager
def redis_for_all() -> Iterator[None]:
    """Set ``REDIS_URL`` for all services started in the block, by the variable."""
    way = os.environ.get(VARIABLE, "")
    if not way:
        yield
        return
    if way not in ("steady", "chaos"):
        raise ValueError(f"{VARIABLE}={way}; expected steady or chaos")
    with RedisServer() as server:
        os.environ["REDIS_URL"] = server.url
        stopping = threading.Event()
        chaos = threading.Thread(target=_disturb, args=(server, stopping), daemon=True)
        if way == "chaos":
            chaos.start()
        try:
            yield
        finally:
            stopping.set()
            if way == "chaos":
                chaos.join()
            del os.environ["REDIS_URL"]


def _disturb(server: RedisServer, stopping: threading.Event) -> None:
    moment = random.Random()
    while not stopping.wait(moment.uniform(0.05, _LONGEST_PAUSE_SECONDS)):
        away_seconds = moment.uniform(0.0, _LONGEST_PAUSE_SECONDS)
        with suppress(OSError):
            match moment.choice(("kill", "freeze", "flush", "fill", "cut")):
                case "kill":
                    server.kill()
                    stopping.wait(away_seconds)
                    server.start()
                case "freeze":
                    server.freeze()
                    stopping.wait(away_seconds)
                    server.thaw()
                case "flush":
                    server.command("FLUSHALL")
                case "fill":
                    server.command("CONFIG", "SET", "maxmemory", "1")
                    stopping.wait(away_seconds)
                    server.command("CONFIG", "SET", "maxmemory", "0")
                case "cut":
                    server.command("CLIENT", "KILL", "TYPE", "normal")
                    server.command("CLIENT", "KILL", "TYPE", "pubsub")
