"""``python -m benchmarks [FIGURE…] [--json FILE]``; see ``--help``."""

import sys

from benchmarks.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
