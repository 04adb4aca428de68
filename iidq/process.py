"""Settings of the operating system and the interpreter for one process."""

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Final

MOST_FILES: Final = 65_536
"""Open files that a process takes at most: more than one can serve. Some systems allow a billion."""
RESERVED_FILES: Final = 200
"""Open files kept for Postgres, Redis, gateways and RPC endpoints; idle clients cannot take them."""
_REUSED_BYTES: Final = 4 << 20
_OBJECTS_BETWEEN_COLLECTIONS: Final = 20_000
_PR_SET_PDEATHSIG: Final = 1


def freeze_gc() -> None:
    """Exempt all present objects from garbage collection and collect less often; call once a process is ready.

    A full collection walks every object that is not frozen, and stops the process for 30 to 50 ms. Objects of requests
    and jobs are freed by their reference counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 10, 10)


def raise_malloc_threshold() -> None:
    """Let the C library reuse blocks of up to 4 MiB; call once per process.

    glibc maps each block above 128 KiB separately, and every piece of an upload would be freshly zeroed pages. The
    threshold rises to the size of a freed mapped block (mallopt(3), M_MMAP_THRESHOLD). No effect elsewhere.
    """
    bytearray(_REUSED_BYTES)


def raise_open_files() -> None:
    """Raise the soft limit of open files to the hard limit, at most :data:`MOST_FILES`; 1,024 is a common default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS names a hard limit that it does not grant.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Return how many clients can be connected at a time: the open files less the reserved ones."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - RESERVED_FILES, soft // 2)


def die_with_parent(how: signal.Signals) -> Callable[[], None] | None:
    """Return a ``preexec_fn`` for Linux to send ``how`` to a child at the parent's death; None elsewhere.

    The parent is the starting *thread*: use a thread with the lifetime of the process.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def before_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return before_exec
