"""`python -m cacovid COMMAND`: look inside the suite. Each command is a module of `cacovid.commands`."""

import sys

from cacovid.commands.line import main

if __name__ == "__main__":
    sys.exit(main())
