"""`python -m sweeps COMMAND`: each command is a module of `sweeps.commands`."""

import sys

from sweeps.commands.line import main

if __name__ == "__main__":
    sys.exit(main())
