"""Run the command line, as `envbuilder` or `python -m envbuilder`."""

import signal

# Ctrl-C while the rest is being imported ends the process without a traceback; `main` sets its own handlers.
if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from envbuilder.cli import main

if __name__ == "__main__":
    main()
