"""Run lrfused's commands: `python -m lrfused <command>`."""

import sys

from .commands.main import main

if __name__ == "__main__":
    sys.exit(main())
