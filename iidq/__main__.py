"""``python -m iidq`` is ``iidq``."""

from iidq.cli import main

if __name__ == "__main__":
    main()
