"""`python -m vaestro` is the same program as `vaestro`."""

import sys

from vaestro.cli import main

if __name__ == "__main__":
    sys.exit(main())
