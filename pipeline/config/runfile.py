"""The schema of a run file."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints, model_validator

from envbuilder.documents import Document, slashed

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Also as people write it out: 10 min, 2 hours.
_UNIT = "ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?"
_MOST_GPUS = 1024
_DURATION = re.compile(rf"(?:\d+(?:\.\d+)?\s*(?:{_UNIT})(?![a-z])\s*)+")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(iB|B)?", re.IGNORECASE)
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNIT})(?![a-z])")
_WHOLE = re.compile(r"\d{1,12}")
_DECIMAL = re.compile(r"\d{1,6}(?:\.\d{1,9})?")


def parse_duration(value: object) -> float:
    """Seconds of a duration such as ``10m``, ``30s``, ``1h30m``, ``500ms`` or ``10 min``.

    Raises:
        ValueError: it is none, or is no time at all.
    """
    if isinstance(value, str) and _DURATION.fullmatch(value.strip()):
        seconds = sum(float(number) * _seconds(unit) for number, unit in _PART.findall(value))
        if 0 < seconds < float("inf"):
            return seconds
    raise ValueError("expected a duration above zero with its unit, such as 30s, 10m or 1h30m")


def _seconds(unit: str) -> float:
    return _UNITS_S["ms" if unit.startswith(("ms", "milli")) else unit[0]]


def parse_size(value: object) -> int:
    """Bytes of a size: ``16G`` and ``16GiB`` are powers of 1024, ``16GB`` is one of 1000.

    Raises:
        ValueError: it is none, or nothing at all.
    """
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        base = 1000 if (found[3] or "").lower() == "b" else 1024
        size = int(float(found[1]) * base ** (" KMGT".index(found[2].upper())))
        if size > 0:
            return size
    raise ValueError("expected a size above zero with its unit, such as 16G (GiB), 16GB (powers of 1000) or 500M")


def parse_gpus(value: object) -> float | None:
    """A number of GPUs: a whole one, or a part of one; None for ``auto``.

    Raises:
        ValueError: it is neither.
    """
    if value == "auto":
        return None
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_some = 1 < value <= _MOST_GPUS and float(value).is_integer()
        if is_some or 0 <= value <= 1:
            return float(value)
    raise ValueError("expected auto, a whole number of GPUs, or a part of one between 0 and 1")


def parse_whole(value: object) -> object:
    """A whole number; one in quotes, as templates write it, is the same number."""
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value.strip()) else value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
PluginName = Annotated[str, StringConstraints(min_length=1)]
# What editors are told is what people write, not what it becomes.
Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str)]
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=str)]
Whole = BeforeValidator(parse_whole, json_schema_input_type=int)
Gpus = Annotated[float | None, BeforeValidator(parse_gpus, json_schema_input_type=float | Literal["auto"])]
Params = dict[str, JsonValue]
Choices = dict[str, Annotated[list[JsonValue], Field(min_length=1)]]


class Columns(Document):
    """Which column of the table holds what; a column not named here is looked for under the key's own name."""

    id: str | None = Field(default=None, description="what names an item; unique")
    image: str | None = Field(default=None, description="the image's path, relative to the table")
    question: str | None = Field(default=None, description="what is asked of the model")
    answer: str | None = Field(default=None, description="the reference")
    doc_class: str | None = Field(default=None, alias="class", description="the class that figures are told by")
    question_type: str | None = Field(default=None, description="the kind of question")


class DataSource(Document):
    """A table of items: CSV, TSV or JSONL by its ending.

    ``path`` is relative to the run file, image paths are relative to the table. Without ``delimiter`` a ``.tsv`` is
    split at tabs, any other table at whichever of ``;``, ``,`` and tab its first line holds most of.
    """

    path: Annotated[str, StringConstraints(min_length=1), AfterValidator(slashed)] = Field(
        description="the table, relative to the run file"
    )
    columns: Columns = Field(default=Columns(), description="which column holds what")
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = Field(
        default=None, description="what stands between columns, where it is not to be guessed"
    )


class TaskEntry(Document):
    """What tasks of every stage have.

    ``timeout`` is for one attempt, loading included, and any worker that goes on where another was lost. A worker
    that gives no sign of life for ``heartbeat-timeout`` counts as hung. ``id`` replaces the plugin's name in task ids.
    ``data`` names data sets; all where it is left out. ``vram`` is memory that each GPU must have free, whoever else
    uses it; without it a whole GPU must be nobody else's. ``gpu-ids: index`` names GPUs by number to code that cannot
    do with their UUIDs.
    """

    plugin: PluginName = Field(description="a plugin of the registry")
    id: Name | None = Field(default=None, description="replaces the plugin's name in task ids")
    params: Params = Field(default_factory=dict, description="what the plugin finds as context.params")
    timeout: Duration | None = Field(default=None, description="for one attempt, loading included: 30s, 10m, 1h30m")
    heartbeat_timeout: Duration = Field(
        default=300.0,
        description="how long a worker may give no sign of life before it counts as hung",
        json_schema_extra={"default": "5m"},
    )
    gpus: Gpus = Field(default=0.0, description="how many, or a share of one; auto takes one if there is any")
    vram: Size | None = Field(
        default=None, description="free memory that each GPU must have: 16G or 16GiB; 16GB is in powers of 1000"
    )
    gpu_ids: Literal["uuid", "index"] = Field(default="uuid", description="how GPUs are named to the worker")


class InferenceEntry(TaskEntry):
    """A model on data sets.

    ``gpus: auto`` takes one GPU if there is any, else the CPU. ``matrix`` lists values of this task's own
    parameters, which ``params`` does not set; each combination is one task. A ``timing`` task has the machine to itself. ``weights`` are files and
    folders, relative to the run file, that the model is loaded from: with other contents it is another model.
    """

    gpus: Gpus = Field(
        default=None,
        description="auto: one GPU if there is any, else the CPU; a number, or a share",
        json_schema_extra={"default": "auto"},
    )
    batch: Annotated[int, Whole, Field(strict=True, ge=1, le=1_000_000)] = Field(
        default=1, description="items in one call of the model"
    )
    item_timeout: Duration | None = Field(default=None, description="for one item")
    data: list[str] | None = Field(default=None, description="names of data sets; without it all")
    timing: bool = Field(default=False, description="the task has the machine to itself")
    weights: list[Annotated[str, StringConstraints(min_length=1)]] = Field(
        default_factory=list, description="files and folders of the model, relative to the run file"
    )
    matrix: Choices = Field(
        default_factory=dict, description="values of this task's own parameters; each combination is one task"
    )


class EvalEntry(TaskEntry):
    """A judge of every inference task's answers on data sets."""

    data: list[str] | None = Field(default=None, description="names of data sets; without it all")


class ReportEntry(TaskEntry):
    """A writer of a report on the whole run."""


class Matrix(Document):
    """What to try in every combination.

    ``plugin`` lists inference plugins, each as if ``- {plugin: NAME}`` stood under ``inference``. ``params`` lists
    values by parameter; every inference task becomes one task for each value. A parameter that a task sets itself, in
    ``params`` or in a ``matrix`` of its own, cannot stand here too: that is refused with both places.
    """

    plugin: list[PluginName] = Field(default_factory=list, description="inference plugins")
    params: Choices = Field(default_factory=dict, description="values by parameter")


class RunFile(Document):
    """A run: data, inference, evaluation and report.

    ``repeat`` runs every inference task so many times. With ``on-failure: stop`` nothing but the report is started
    once a task has failed. ``retries`` is how often an attempt that crashed or was killed is made again.
    ``deterministic`` has torch choose kernels that give the same each time, which are slower: not for ``timing`` tasks.
    ``gpu-wait`` is how long to wait, with nothing else to do, for GPUs that others use.
    """

    name: Name = Field(description="stands in the run's id")
    data: Annotated[dict[Name, DataSource], Field(min_length=1)] = Field(description="data sets by name")
    inference: list[InferenceEntry] = Field(default_factory=list, description="models to run")
    eval: list[EvalEntry] = Field(default_factory=list, description="judges of their answers")
    report: list[ReportEntry] = Field(default_factory=list, description="writers of reports")
    matrix: Matrix = Field(default=Matrix(), description="what to try in every combination")
    repeat: Annotated[int, Whole, Field(strict=True, ge=1, le=1000)] = Field(
        default=1, description="how often every inference task is run"
    )
    seed: Annotated[int, Whole, Field(strict=True, ge=0, lt=2**32)] = Field(
        default=0, description="of random numbers, for every worker"
    )
    on_failure: Literal["continue", "stop"] = Field(
        default="continue", description="stop: nothing but the report is started once a task has failed"
    )
    retries: Annotated[int, Whole, Field(strict=True, ge=0, le=100)] = Field(
        default=0, description="how often an attempt that crashed or was killed is made again"
    )
    deterministic: bool = Field(default=False, description="torch's deterministic kernels, which are slower")
    gpu_wait: Duration = Field(
        default=600.0,
        description="how long to wait, with nothing else to do, for GPUs that others use",
        json_schema_extra={"default": "10m"},
    )

    @model_validator(mode="after")
    def _keep_apart(self) -> "RunFile":
        if self.deterministic and any(entry.timing for entry in self.inference):
            raise ValueError("deterministic kernels are slower: timing tasks need a run of their own without them")
        return self
