"""The command ``ragtrainer``."""

import sys

from ragtrainer._native import run_program


def main() -> int:
    """Runs the program with the arguments of this process."""
    return run_program(["ragtrainer", *sys.argv[1:]])
