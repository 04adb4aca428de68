"""``python -m benchmarks [FIGURE…] [--json FILE]``; see ``--help``."""

import signal
import sys

from benchmarks.run import main

if __name__ == "__main__":
    # A signal still stops the server and removes the files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
