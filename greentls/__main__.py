"""python -m greentls: the command line."""

import sys

from greentls.cli import main

if __name__ == "__main__":
    sys.exit(main())
