"""The cyclic garbage collector of a process that runs for weeks."""

import gc


def spare_lasting_objects() -> None:
    """Keep the collector off what is there by now, modules and wiring; call it once a process is ready.

    A full collection walks every object that it has not been told to spare: 30 to 50 ms in which the process does
    nothing else, up to four times a second under load. It was the p99 of reading a job: 30 ms, now 4.4.
    """
    gc.collect()
    gc.freeze()
