"""What keeps a run from starting. What goes wrong within one is a value: a task's status and a `Problem`."""

from __future__ import annotations

from envbuilder.errors import EXIT_FAILED, EnvbuilderError, SeveralProblems, UsageError


class EnvironmentsError(EnvbuilderError):
    """A list of environments that is no such list."""

    code = "environments-invalid"


class RecordError(EnvbuilderError):
    """The record of a run cannot be written or read."""

    code = "record-unusable"


class SlotsError(EnvbuilderError):
    """Slots that something of an earlier run may still hold."""

    code = "slot-lost"


class ChangedError(SeveralProblems):
    """A run that cannot be gone on with, since it would be another one now."""

    code = "run-changed"


class LostError(ChangedError):
    """A run that had ended and has lost parts since, which cannot be made again: it would be another run now."""

    exit_status = EXIT_FAILED


class UnknownRunError(UsageError):
    """No run of that name."""

    code = "unknown-run"
