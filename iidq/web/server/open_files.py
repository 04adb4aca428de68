"""How many connections a process can hold: what the system lets it open, less what serving them takes.

Without this bound idle clients take the last descriptors, and Postgres, gateways and RPC endpoints are out of reach.
"""

import contextlib
import resource
import sys
from typing import Final

MOST_FILES: Final = 65_536
"""More than one process can serve; some systems allow a billion."""
RESERVED_FILES: Final = 200
"""For Postgres, Redis, and what a process verifies itself."""


def raise_open_files() -> None:
    """Take what the hard limit allows; many systems start a program with 1,024, fewer than can watch a job."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS names a hard limit that it does not grant.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Of clients, at a time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - RESERVED_FILES, soft // 2)
