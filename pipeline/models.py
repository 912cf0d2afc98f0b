"""The values that pass between the rooms of the runner. No I/O."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, Protocol

from pydantic import ConfigDict, TypeAdapter, ValidationError

from envbuilder.errors import Problem
from pipeline.errors import EnvironmentsError

Stage = Literal["inference", "eval", "report"]
STAGES: tuple[Stage, ...] = ("inference", "eval", "report")

# The last two are those of tasks that have not ended.
Status = Literal["ok", "failed", "timeout", "oom-gpu", "oom-host", "killed", "cancelled", "pending", "running"]

ENVIRONMENTS_SCHEMA = "envbuilder/environments/1"


@dataclass(frozen=True)
class Code:
    """Code that is not in any lock, as it was when the run began: that of an editable checkout.

    Attributes:
        digest: of all its files, by name and content.
        commit: the commit that is checked out; None where it is in no git repository.
        difference: digest of what differs from that commit; None where nothing does.
    """

    digest: str
    commit: str | None = None
    difference: str | None = None

    @property
    def dirty(self) -> bool:
        """Whether it is other than its commit."""
        return self.difference is not None


@dataclass(frozen=True)
class Environment:
    """A ready environment of one plugin: what envbuilder hands to a run.

    Attributes:
        plugin: the plugin's distribution name.
        stage: the stage that the plugin serves.
        path: the root of the virtual environment.
        python: absolute path of its interpreter.
        key: the environment's name in the store; equal keys are equal environments.
        cache_dir: absolute folder for files that the plugin keeps between runs.
        entry: ``module:attribute`` of the plugin's class; None where there is a `command`.
        command: program and arguments of a plugin without a class; None where there is an `entry`.
        env: variables set for the worker.
        versions: of ``python``, the plugin, and the packages worth knowing.
        lock_digest: digest of the lock that it was built from.
        source: where the plugin's code comes from, as plain JSON.
        pycache: where its interpreter puts bytecode; None for wherever Python likes.
        code: editable checkouts that it imports from, by their paths as people write them.
        seal: digest of its seal: another one means that it was built anew; empty where it has none.
    """

    plugin: str
    stage: Stage
    path: Path
    python: Path
    key: str
    cache_dir: Path
    entry: str | None = None
    command: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    lock_digest: str = ""
    source: Mapping[str, object] = field(default_factory=dict)
    pycache: Path | None = None
    code: Mapping[str, Code] = field(default_factory=dict)
    seal: str = ""

    def __post_init__(self) -> None:
        """Refuse a plugin that nobody could start."""
        if bool(self.entry) == bool(self.command):
            raise ValueError(f"{self.plugin}: needs either an entry or a command")


# Its checks are made when it is first used: most commands never do.
LATER = ConfigDict(defer_build=True)
_ENVIRONMENTS = TypeAdapter(tuple[Environment, ...], config=LATER)


def environments_to_json(environments: Iterable[Environment]) -> dict[str, object]:
    """Environments as a JSON document."""
    listed = _ENVIRONMENTS.dump_python(tuple(environments), mode="json")
    return {"schema": ENVIRONMENTS_SCHEMA, "environments": listed}


def environments_from_json(document: object) -> tuple[Environment, ...]:
    """Environments from the document that `environments_to_json` made.

    Raises:
        EnvironmentsError: it is another document, or damaged.
    """
    schema = document.get("schema") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or schema != ENVIRONMENTS_SCHEMA:
        raise EnvironmentsError(f"expected schema {ENVIRONMENTS_SCHEMA!r}, found {schema!r}", hint="envbuilder build")
    try:
        return _ENVIRONMENTS.validate_python(document.get("environments"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise EnvironmentsError(f"environments.{place}: {first['msg']}", hint="envbuilder build") from error


@dataclass(frozen=True)
class DataItem:
    """One row of a data set.

    Attributes:
        id: unique within the data set.
        references: acceptable answers, at least one.
        image: absolute path, or None for a question without an image.
        question: what is asked; may be empty.
        doc_class: the class that figures are broken down by.
        question_type: free text.
        fields: every other column, by name.
        error: why it cannot be offered to any plugin (``image-missing: ...``), or None.
    """

    id: str
    references: tuple[str, ...]
    image: Path | None = None
    question: str = ""
    doc_class: str = ""
    question_type: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set as read.

    Attributes:
        name: its name in the run file.
        path: the table.
        digest: of its rows and the bytes of its images.
        items: its rows.
        warnings: what is wrong with its images, one for each kind of cause.
    """

    name: str
    path: Path
    digest: str
    items: tuple[DataItem, ...]
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Wish:
    """What a task wants to run on.

    Attributes:
        gpus: how many GPUs (a part of one below 1); 0 for the CPU; None for one GPU if there is any, else the CPU.
        vram_bytes: free memory that each GPU must have; 0 for no wish, and then whole GPUs must be nobody else's.
        timing: whether nothing else may run meanwhile.
        by_index: whether the worker is told GPUs by number, not by UUID, for code that counts on that.
    """

    gpus: float | None = 0.0
    vram_bytes: int = 0
    timing: bool = False
    by_index: bool = False


@dataclass(frozen=True)
class Task:
    """One plugin at one stage of a run.

    Attributes:
        id: unique within the run, for people and for file names.
        stage: its stage.
        environment: where it runs.
        params: the plugin's parameters.
        data: name of the data set; None at the report stage.
        inference: at the eval stage the id of the inference task that is judged, else None.
        wish: what it wants to run on.
        batch: the most items of one call.
        timeout_s: seconds for one attempt, loading included, and for going on after lost items; None for no limit.
        item_timeout_s: seconds for one item; a batch gets as many times that.
        silence_s: seconds without a sign of life after which its worker counts as hung; None for no limit.
        seed: the run's seed.
        deterministic: whether what is faster but not the same each time is switched off.
        repetition: 1 for the first time, counted where the run repeats its tasks.
        weights: files and folders that its model is loaded from, as the run file names them, to their digests.
        parts: what its result depends on, as far as the plan knows it; see `pipeline.identity`.
        identity: digest of these parts.
    """

    id: str
    stage: Stage
    environment: Environment
    params: Mapping[str, object]
    data: str | None = None
    inference: str | None = None
    wish: Wish = Wish()
    batch: int = 1
    timeout_s: float | None = None
    item_timeout_s: float | None = None
    silence_s: float | None = None
    seed: int = 0
    deterministic: bool = False
    repetition: int = 1
    weights: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    identity: str = ""

    @property
    def warm_key(self) -> str | None:
        """Equal for tasks that one worker can do one after the other, its model loaded once; None for those it cannot."""
        environment = self.environment
        if self.stage != "inference" or environment.entry is None:
            return None
        settings = (dict(self.params), asdict(self.wish), self.batch, self.seed, self.deterministic)
        return json.dumps((environment.key, environment.plugin, environment.entry, *settings), sort_keys=True)


@dataclass(frozen=True)
class Plan:
    """Everything that a run does, in order. `gpu_wait_s` is how long it waits for GPUs that others use."""

    name: str
    seed: int
    stop_on_failure: bool
    retries: int
    gpu_wait_s: float
    data: tuple[DataSet, ...]
    tasks: tuple[Task, ...]

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is wrong with the images of its data sets."""
        return tuple(warning for data in self.data for warning in data.warnings)

    def stage(self, stage: Stage) -> tuple[Task, ...]:
        """The tasks of one stage."""
        return tuple(task for task in self.tasks if task.stage == stage)

    def shares_worker(self, task: Task) -> bool:
        """Whether the worker that does a task can do another of the plan's tasks too."""
        key = task.warm_key
        return key is not None and sum(each.warm_key == key for each in self.tasks) > 1

    def data_set(self, name: str | None) -> DataSet | None:
        """The data set of that name."""
        return next((data for data in self.data if data.name == name), None)


@dataclass(frozen=True)
class AnswerLine:
    """One line of a task's journal: an answer, or why there is none.

    `latency_s` is in seconds; `reused_from` is the run that it was asked in, where that is another one.
    """

    item: str
    task: str
    attempt: str
    answer: str | None = None
    error: str | None = None
    latency_s: float | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    reused_from: str | None = None

    def to_json(self) -> dict[str, object]:
        """The line as an object; what is extra stands beside the known keys and never replaces one."""
        known = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "extra"}
        if self.reused_from is None:
            del known["reused_from"]
        return {**known, **{key: value for key, value in self.extra.items() if key not in known}}


_ANSWER_FIELDS = tuple(each.name for each in fields(AnswerLine) if each.name != "extra")


def answer_line_from_json(document: Mapping[str, object]) -> AnswerLine:
    """A line from its object.

    Raises:
        ValueError: it is no such line.
    """
    # By hand: a hundred thousand of them are read at a time, and a schema library takes ten times as long.
    known = {name: document[name] for name in _ANSWER_FIELDS if name in document}
    latency_s = known.get("latency_s")
    if not all(isinstance(known.get(name), str) for name in ("item", "task", "attempt")):
        raise ValueError("item, task and attempt must be text")
    if not all(isinstance(known.get(name), str | None) for name in ("answer", "error", "reused_from")):
        raise ValueError("answer, error and reused_from must be text")
    if isinstance(latency_s, bool) or not isinstance(latency_s, int | float | None):
        raise ValueError("latency_s must be a number")
    extra = {key: value for key, value in document.items() if key not in _ANSWER_FIELDS}
    return AnswerLine(**known, extra=extra)  # type: ignore[arg-type]  # each of them was looked at


@dataclass(frozen=True)
class AttemptRecord:
    """One try at a task: how it ended, seconds of wall time, what was odd about its messages, and what guarded the rest.

    `guard` is what kept its worker from writing where it has no business; see `pipeline.guard`.
    """

    id: str
    status: Status
    code: str | None = None
    error: str | None = None
    wall_s: float = 0.0
    returncode: int | None = None
    anomalies: Mapping[str, int] = field(default_factory=dict)
    oom_kills: Mapping[str, int] = field(default_factory=dict)
    guard: str = ""


@dataclass(frozen=True)
class TaskResult:
    """How a task ended.

    Seconds are wall time; memory is in bytes. `code` names what went wrong more finely than `status` does, and
    `log` is the file to look into. `warm` says that its worker had loaded the model for another task, `degraded` what
    was done less well than asked for, `metrics` what the plugin measured itself. `started` and `finished` are ISO 8601
    in UTC, `slot` is where it ran. Peaks are those of one process; those of the whole ``tree`` come from a look each
    second. `identity` is the digest of `identity_parts`, what the result depends on. `reused` is the run that it was
    taken from; every figure of it was measured there. `left_items` were neither answered nor failed when the task ended.
    `seal` is that of its environment. `proved` says that what it used was still the same when its stage had ended, and
    `touched` what was not: then it counts for nothing.

    `items_per_s` counts the time inside ``predict`` alone, `task_items_per_s` all of the task, loading included;
    neither compares with others' where `speed_comparable` is false, for the run then did other than it was asked.
    `gpu_memory_of` says whose memory `peak_gpu_tree_bytes` is: that of the task's own ``processes``, or of the whole
    ``card``, whoever else used it, where the driver does not tell processes apart; empty where none was measured.
    """

    id: str
    stage: Stage
    plugin: str
    status: Status
    data: str | None = None
    inference: str | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    code: str | None = None
    error: str | None = None
    log: str | None = None
    device: str = "cpu"
    device_name: str = ""
    items: int = 0
    failed_items: int = 0
    left_items: int = 0
    load_s: float | None = None
    wall_s: float | None = None
    items_per_s: float | None = None
    task_items_per_s: float | None = None
    speed_comparable: bool = True
    peak_ram_bytes: int | None = None
    peak_gpu_bytes: int | None = None
    peak_tree_bytes: int | None = None
    peak_gpu_tree_bytes: int | None = None
    gpu_memory_of: Literal["", "processes", "card"] = ""
    cpu_s: float | None = None
    environment: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    identity: str = ""
    identity_parts: Mapping[str, str] = field(default_factory=dict)
    seal: str = ""
    proved: bool = False
    touched: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    reused: str | None = None
    started: str | None = None
    finished: str | None = None
    slot: str = ""
    warm: bool = False
    degraded: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the task ended well and no item of it failed."""
        return self.status == "ok" and not self.failed_items


@dataclass(frozen=True)
class Evaluation:
    """One eval task's figures on one inference task; the shape of the report's ``EvaluationDocument``."""

    inference: str
    eval: str
    data: str
    overall: Mapping[str, float]
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    by_item: tuple[Mapping[str, object], ...] = ()
    lower_is_better: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of plain text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        ok: every task ended well and no item failed.
        id: the run's id.
        status: ``ok``, ``failed``, ``cancelled``, ``running``, ``killed`` where its runner is gone, or ``damaged``
            where its record cannot be read; then there are no tasks here.
        problems: what is not as it should be.
        tasks: every planned task, ended or not, in the plan's order.
        evaluations: the figures, without those of single items.
        tables: the same for people.
        paths: ``run``, ``log`` (folder of logs), ``report`` (where one was written), and so on.
        name: the run file's name for it.
        started: ISO 8601, UTC.
        finished: likewise; None while it runs.
        profile: ``dev`` or ``prod``; empty where the record does not tell.
    """

    ok: bool
    id: str
    status: str
    problems: tuple[Problem, ...]
    tasks: tuple[TaskResult, ...]
    evaluations: tuple[Evaluation, ...]
    tables: tuple[Table, ...]
    paths: Mapping[str, str]
    name: str = ""
    started: str = ""
    finished: str | None = None
    profile: str = ""

    @property
    def failed_items(self) -> int:
        """Items without an answer in tasks that ended well: what only ``resume --retry-failed`` asks again."""
        return sum(task.failed_items for task in self.tasks if task.status == "ok")

    def to_json(self) -> dict[str, object]:
        """The ``result`` of ``envbuilder run --format json``; problems stand beside it, not in it."""
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "started": self.started,
            "finished": self.finished,
            "tasks": to_json(self.tasks),
            "evaluations": to_json(self.evaluations),
            "paths": dict(self.paths),
        }


@dataclass(frozen=True)
class Decision:
    """What a run would do with a task.

    Attributes:
        task: its id.
        what: ``run``, ``continue`` (with answers of an earlier run) or ``reuse``.
        run: the run whose result or answers are taken.
        left: items to ask.
        items: items of its data set.
        why: in words.
    """

    task: str
    what: Literal["run", "continue", "reuse"]
    run: str | None = None
    left: int = 0
    items: int = 0
    why: str = ""


@dataclass(frozen=True)
class Difference:
    """A part in which two runs differ: of one task, or, without one, of the runs as such."""

    task: str
    part: str
    old: str
    new: str


@dataclass(frozen=True)
class Figures:
    """One figure of a task in two runs; None where a run has it not. `note` says where else one was measured."""

    task: str
    name: str
    old: float | None
    new: float | None
    note: str = ""


@dataclass(frozen=True)
class RunsDiff:
    """Two runs by their ids: what differs, and all figures side by side."""

    old: str
    new: str
    differences: tuple[Difference, ...]
    figures: tuple[Figures, ...]


_ANYTHING: TypeAdapter[object] = TypeAdapter(object)


def to_json(value: object) -> object:
    """Any of these values as plain JSON."""
    return _ANYTHING.dump_python(value, mode="json")


@dataclass(frozen=True)
class Sample:
    """What an attempt's processes use at a moment.

    Attributes:
        ram_bytes: resident memory of all of them.
        gpu_bytes: memory of the GPUs that it holds; None where it holds none.
        gpu_of: whose memory that is: its own ``processes``', or all that came to be used of the ``card`` meanwhile.
    """

    ram_bytes: int
    gpu_bytes: int | None = None
    gpu_of: Literal["", "processes", "card"] = ""


class Keeper(Protocol):
    """Knows what environments were when a run began. Called by the scheduler's thread and those of tasks."""

    def changed(self, environment: Environment) -> str | None:
        """How an environment differs from what it was, code outside of locks included; None where it does not."""

    def closed(self, environment: Environment) -> Sequence[Path]:
        """The files and folders that its workers have no business to write."""


class Reporter(Protocol):
    """Whoever watches a run; tasks are told by their ids. Called from several threads."""

    def started(self, task: str, items: int, device: str) -> None:
        """A task begins with that many items on that device."""

    def progressed(self, task: str, done: int, failed: int) -> None:
        """So many items of a task are through, `failed` of them without an answer."""

    def finished(self, result: TaskResult) -> None:
        """A task has ended."""

    def noted(self, task: str, text: str) -> None:
        """Something worth a line happened."""

    def measured(self, task: str, sample: Sample) -> None:
        """What a task's processes use now, about once a second."""


class Silence:
    """The reporter that says nothing."""

    def started(self, task: str, items: int, device: str) -> None:
        """Say nothing."""

    def progressed(self, task: str, done: int, failed: int) -> None:
        """Say nothing."""

    def finished(self, result: TaskResult) -> None:
        """Say nothing."""

    def noted(self, task: str, text: str) -> None:
        """Say nothing."""

    def measured(self, task: str, sample: Sample) -> None:
        """Say nothing."""


def chunked(texts: Sequence[str], most: int = 5) -> str:
    """The first few of many, for a message."""
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")
