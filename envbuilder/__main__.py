"""Run the command line as `python -m envbuilder`."""

from envbuilder.cli import main

main()
