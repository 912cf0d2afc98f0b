"""The schema of a run file."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints, model_validator

from envbuilder.documents import Document, slashed

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_GPUS = 1024
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d)\s*)+")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:iB)?")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(value: object) -> float:
    """Seconds of a duration such as ``10m``, ``30s``, ``1h30m`` or ``500ms``.

    Raises:
        ValueError: it is none, or is no time at all.
    """
    if isinstance(value, str) and _DURATION.fullmatch(value.strip()):
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(value))
        if seconds > 0:
            return seconds
    raise ValueError("expected a duration above zero with its unit, such as 30s, 10m or 1h30m")


def parse_size(value: object) -> int:
    """Bytes of a size such as ``16G``, ``500M`` or ``1.5T``, in powers of 1024.

    Raises:
        ValueError: it is none, or nothing at all.
    """
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        size = int(float(found[1]) * 1024 ** (" KMGT".index(found[2])))
        if size > 0:
            return size
    raise ValueError("expected a size above zero with its unit, such as 16G or 500M")


def parse_gpus(value: object) -> float | None:
    """A number of GPUs: a whole one, or a part of one; None for ``auto``.

    Raises:
        ValueError: it is neither.
    """
    if value == "auto":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_some = 1 < value <= _MOST_GPUS and float(value).is_integer()
        if is_some or 0 <= value <= 1:
            return float(value)
    raise ValueError("expected auto, a whole number of GPUs, or a part of one between 0 and 1")


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
PluginName = Annotated[str, StringConstraints(min_length=1)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
Gpus = Annotated[float | None, BeforeValidator(parse_gpus)]
Params = dict[str, JsonValue]
Choices = dict[str, Annotated[list[JsonValue], Field(min_length=1)]]


class Columns(Document):
    """Which column of the table holds what; a column not named here is looked for under the key's own name."""

    id: str | None = None
    image: str | None = None
    question: str | None = None
    answer: str | None = None
    doc_class: str | None = Field(default=None, alias="class")
    question_type: str | None = None


class DataSource(Document):
    """A table of items: CSV, TSV or JSONL by its ending.

    ``path`` is relative to the run file, image paths are relative to the table. Without ``delimiter`` a ``.tsv`` is
    split at tabs, any other table at whichever of ``;``, ``,`` and tab its first line holds most of.
    """

    path: Annotated[str, StringConstraints(min_length=1), AfterValidator(slashed)]
    columns: Columns = Columns()
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None


class TaskEntry(Document):
    """What tasks of every stage have.

    ``timeout`` is for one attempt, loading included, and any worker that goes on where another was lost. A worker
    that gives no sign of life for ``heartbeat-timeout`` counts as hung. ``id`` replaces the plugin's name in task ids.
    ``data`` names data sets; all where it is left out. ``vram`` is memory that each GPU must have free, whoever else
    uses it; without it a whole GPU must be nobody else's. ``gpu-ids: index`` names GPUs by number to code that cannot
    do with their UUIDs.
    """

    plugin: PluginName
    id: Name | None = None
    params: Params = Field(default_factory=dict)
    timeout: Duration | None = None
    heartbeat_timeout: Duration = 300.0
    gpus: Gpus = 0.0
    vram: Size | None = None
    gpu_ids: Literal["uuid", "index"] = "uuid"


class InferenceEntry(TaskEntry):
    """A model on data sets.

    ``gpus: auto`` takes one GPU if there is any, else the CPU. ``matrix`` lists values of this task's own
    parameters; each combination is one task. A ``timing`` task has the machine to itself. ``weights`` are files and
    folders, relative to the run file, that the model is loaded from: with other contents it is another model.
    """

    gpus: Gpus = None
    batch: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 1
    item_timeout: Duration | None = None
    data: list[str] | None = None
    timing: bool = False
    weights: list[Annotated[str, StringConstraints(min_length=1)]] = Field(default_factory=list)
    matrix: Choices = Field(default_factory=dict)


class EvalEntry(TaskEntry):
    """A judge of every inference task's answers on data sets."""

    data: list[str] | None = None


class ReportEntry(TaskEntry):
    """A writer of a report on the whole run."""


class Matrix(Document):
    """What to try in every combination.

    ``plugin`` lists inference plugins, each as if ``- {plugin: NAME}`` stood under ``inference``. ``params`` lists
    values by parameter; every inference task that does not set that parameter itself (in ``params`` or ``matrix``)
    becomes one task for each value.
    """

    plugin: list[PluginName] = Field(default_factory=list)
    params: Choices = Field(default_factory=dict)


class RunFile(Document):
    """A run: data, inference, evaluation and report.

    ``repeat`` runs every inference task so many times. With ``on-failure: stop`` nothing but the report is started
    once a task has failed. ``retries`` is how often an attempt that crashed or was killed is made again.
    ``deterministic`` has torch choose kernels that give the same each time, which are slower: not for ``timing`` tasks.
    ``gpu-wait`` is how long to wait, with nothing else to do, for GPUs that others use.
    """

    name: Name
    data: Annotated[dict[Name, DataSource], Field(min_length=1)]
    inference: list[InferenceEntry] = Field(default_factory=list)
    eval: list[EvalEntry] = Field(default_factory=list)
    report: list[ReportEntry] = Field(default_factory=list)
    matrix: Matrix = Matrix()
    repeat: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    on_failure: Literal["continue", "stop"] = "continue"
    retries: Annotated[int, Field(strict=True, ge=0, le=100)] = 0
    deterministic: bool = False
    gpu_wait: Duration = 600.0

    @model_validator(mode="after")
    def _keep_apart(self) -> "RunFile":
        if self.deterministic and any(entry.timing for entry in self.inference):
            raise ValueError("deterministic kernels are slower: timing tasks need a run of their own without them")
        return self
