"""The command line. Only this room prints or exits."""

from __future__ import annotations

import io
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click

from envbuilder import __version__
from envbuilder.cli.commands import Overview, lose_output
from envbuilder.errors import EXIT_INTERRUPTED, EXIT_UNUSABLE, EnvbuilderError, Interrupted, Problem, remedy

# Options that may stand before a command's name, with a word that is none.
_WITH_VALUES = {"-C", "--workspace", "--profile", "--format"}
# What a shell says of a program that SIGPIPE ended.
_BROKEN_PIPE = 141
# Shells ask for words by this variable.
_COMPLETES = "_ENVBUILDER_COMPLETE"


@click.group(cls=Overview, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="envbuilder")
def cli() -> None:
    """One locked, verified environment per plugin, and a runner that benchmarks them side by side.

    Each command tells more, with examples: envbuilder COMMAND --help. What all of them take (--profile, -C, --format, -q,
    -v) may stand before its name or after it.
    """


def main() -> None:
    """Run the command line; ends the process with the contract's exit status."""
    # Without a stdout or stderr (`>&-`) there is nobody to be told.
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as we run
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # Names of files may be no text, and terminals may lack letters.
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup has SIGHUP ignored, and a shell's `&` in a script SIGINT: then it stays so.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        _main()
    except KeyboardInterrupt:  # Once more, while the first was being told of.
        os._exit(EXIT_INTERRUPTED)


def _main() -> None:
    try:
        _call()
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        # Nobody asked for anything yet: a page of help is the answer, not an error's message.
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_UNUSABLE)
    except click.ClickException as error:
        hint = f"{error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else None
        _end((Problem("usage", error.format_message(), hint=hint or "envbuilder --help"),), EXIT_UNUSABLE)
    except (KeyboardInterrupt, click.Abort):
        _end(Interrupted().problems, EXIT_INTERRUPTED)
    except EnvbuilderError as error:
        _end(error.problems, error.exit_status)
    except BrokenPipeError:
        # Whoever read our output has seen enough, before there was a result.
        lose_output(sys.stdout, sys.stderr)
        sys.exit(_BROKEN_PIPE)
    except OSError as error:
        _end((_refused(error),), EXIT_UNUSABLE)
    except Exception as error:  # noqa: BLE001 - the last resort: a traceback helps nobody but us
        if interruption_in(error):
            _end(Interrupted().problems, EXIT_INTERRUPTED)
        _end((_unforeseen(error),), EXIT_UNUSABLE)


def _refused(error: OSError) -> Problem:
    """What the system refused that nobody else has told of: a look into the state, or our own output, on a full disk, say."""
    if isinstance(error, PermissionError) and error.filename:
        return Problem("unreadable", f"{error.strerror}", where=str(error.filename), hint=f"ls -ld {error.filename}")
    if hint := remedy(error):
        return Problem("system-limit", error.strerror or str(error), where=_named(error), hint=hint)
    lose_output(sys.stdout)
    return Problem("unwritable", f"cannot write the result: {error.strerror or error}", hint="df -h .")


def _named(error: OSError) -> str | None:
    return str(error.filename) if error.filename else None


def _call() -> None:
    output = sys.stdout
    try:
        # By whatever name or path it was started.
        cli.main(prog_name="envbuilder", complete_var=_COMPLETES, standalone_mode=False)
        output.flush()
    except SystemExit:
        if sys.stdout is not output:  # How click takes a broken pipe, which it then calls an exit with 1.
            raise BrokenPipeError from None
        raise


def _stop(_number: int, _frame: FrameType | None) -> None:
    from envbuilder.process import stop_all

    stop_all()
    raise KeyboardInterrupt


def interruption_in(error: BaseException | None) -> bool:
    """Whether an error is an interruption at heart: classes and imports in the making wrap, or trip over, what stops them."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _unforeseen(error: Exception) -> Problem:
    """An error that nobody thought of, with its traceback in a file."""
    import tempfile
    import traceback

    handle, name = tempfile.mkstemp(prefix="envbuilder-", suffix=".log", text=True)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        traceback.print_exception(error, file=stream)
    return Problem(
        "internal-error", f"{type(error).__name__}: {error}; this is a bug of envbuilder's", hint=f"cat {name}"
    )


def _end(problems: Sequence[Problem], status: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # The end is near: nobody needs to ask for it again.
    if _COMPLETES in os.environ:  # Somebody is typing: an error would be printed into their line.
        sys.exit(status)
    from envbuilder.render import Outcome, show

    words = sys.argv[1:]
    values = {number + 1 for number, word in enumerate(words) if word in _WITH_VALUES}
    command = next(
        (word for place, word in enumerate(words) if word in cli.commands and place not in values), "envbuilder"
    )
    group = cli.get_command(click.Context(cli), command)
    if isinstance(group, click.Group):
        command += f" {next((word for word in words if word in group.commands), '')}".rstrip()
    pairs = [
        *itertools.pairwise(words),
        *(tuple(word.split("=", 1)) for word in words if word.startswith("--profile=")),
    ]
    wants_json = "--format=json" in words or ("--format", "json") in pairs
    profile = next((value for name, value in pairs if name == "--profile"), os.environ.get("RUN_MODE", "prod"))
    outcome = Outcome(command, profile, problems=tuple(problems), exit_status=status)
    try:
        show(outcome, output="json" if wants_json else "text", quiet=False)
        sys.stdout.flush()
    except OSError:  # Nobody listens, or the disk is full: the exit status says it.
        lose_output(sys.stdout, sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
