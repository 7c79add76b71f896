"""`python -m aijax` is the same as the command `aijax`."""

import sys

from aijax.launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
