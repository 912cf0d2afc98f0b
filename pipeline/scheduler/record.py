"""The record of a run: ``run.json``, the metrics, and the document that reports are made from."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from envbuilder.errors import Problem
from pipeline.identity import identity_of
from pipeline.layout import RunLayout, csv_text, now, read_answers, write_json, write_text
from pipeline.models import Environment, Evaluation, Plan, Task, TaskResult, to_json
from pipeline.placement import Slot
from pipeline.protocol import record_documents
from pipeline.redaction import clean
from pipeline.scheduler.past import Terms
from pipeline.scheduler.reporting import History, evidence, provenance, read_events, repetitions
from pipeline.scheduler.tries import on_slot, unstarted
from pipeline.slots import Gpu, cpu_count, without_numbers

RUN_SCHEMA = "envbuilder/run/1"
METRICS_SCHEMA = "envbuilder/metrics/1"
METRICS_HEADER = ("run", "task", "plugin", "data", "class", "metric", "value")

# What explains a result and holds no secret.
_TOLD_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "LANG",
    "LC_ALL",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "RUN_MODE",
    "TRANSFORMERS_OFFLINE",
)
# What a report is told of otherwise, with what made each figure.
_TOLD_ELSEWHERE = frozenset({"log", "identity", "identity_parts", "weights"})


@dataclass(frozen=True)
class Header:
    """What is known of a run before it begins.

    Attributes:
        profile: ``dev`` or ``prod``.
        run_file: path of the run file.
        pins: what the profile's git sources were pinned to, as plain JSON.
        jobs: attempts that may use the CPU at once.
        gpus: the GPUs there are.
        driver: the version of their driver; empty where there is none.
        started: ISO 8601, UTC.
        resumed: when it was gone on with, likewise.
        terms: which earlier results it may take.
    """

    profile: str
    run_file: str
    pins: Mapping[str, object] = field(default_factory=dict)
    jobs: int = 1
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    started: str = field(default_factory=now)
    resumed: tuple[str, ...] = ()
    terms: Terms = field(default_factory=Terms)


def host_facts(gpus: Sequence[Gpu], driver: str) -> dict[str, str]:
    """The machine in words."""
    facts = {
        "name": platform.node(),
        "system": platform.platform(),
        "processors": str(cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "runner's Python": platform.python_version(),
    }
    if gpus:
        facts["GPUs"] = ", ".join(gpu.name for gpu in gpus)
        facts["GPU driver"] = driver
    return facts


def code_document(environment: Environment) -> dict[str, object]:
    """The editable checkouts that an environment imports from, as they were: what makes a dev run what it is."""
    return {name: {**asdict(code), "dirty": code.dirty} for name, code in environment.code.items()}


class Record:
    """What a run has come to so far, on disk after every change. Used by one thread.

    Args:
        plan: what it does.
        layout: where it stands.
        header: what is known of it before.
        before: results that it had when it was resumed.
    """

    def __init__(
        self, plan: Plan, layout: RunLayout, header: Header, before: Mapping[str, TaskResult] | None = None
    ) -> None:
        self.plan = plan
        self.layout = layout
        self.header = header
        self.status = "running"
        self.finished: str | None = None
        self._before = dict(before or {})
        self._begun: dict[str, TaskResult] = {}
        self._results: dict[str, TaskResult] = {}
        self._evaluations: dict[str, Evaluation] = {}

    @property
    def results(self) -> tuple[TaskResult, ...]:
        """Results so far, in the plan's order."""
        return tuple(self._results[task.id] for task in self.plan.tasks if task.id in self._results)

    @property
    def tasks(self) -> tuple[TaskResult, ...]:
        """Every task of the plan: its result, or a placeholder while there is none."""
        return tuple(self._results.get(task.id) or self._unfinished(task) for task in self.plan.tasks)

    def _unfinished(self, task: Task) -> TaskResult:
        data = self.plan.data_set(task.data)
        begun = self._begun.get(task.id) or self._before.get(task.id)
        if begun is not None:
            return begun
        return replace(unstarted(task, "pending"), items=len(data.items) if data else 0)

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Figures so far, in the plan's order."""
        return tuple(self._evaluations[task.id] for task in self.plan.tasks if task.id in self._evaluations)

    def result(self, task_id: str | None) -> TaskResult | None:
        """How a task ended, if it has."""
        return self._results.get(task_id or "")

    def begin(self, task: Task, slot: Slot) -> None:
        """Write down that a task is at work, and on what: who looks after the runner was killed shall find it."""
        parts = on_slot(task, slot)
        self._begun[task.id] = replace(
            self._unfinished(task),
            status="running",
            code=None,
            error=None,
            device=slot.device,
            device_name=parts["device"],
            identity=identity_of(parts),
            identity_parts=parts,
            reused=None,
        )
        self.save()

    def add(self, result: TaskResult, evaluation: Evaluation | None = None) -> None:
        """Take a task's result, and write everything down."""
        before = self._before.get(result.id)
        if before and before.attempts and not result.attempts and result.status != "ok":
            # It did not come to be gone on with; what was tried before stays known.
            result = replace(before, status=result.status, code=result.code, error=result.error)
        self._results[result.id] = result
        if evaluation is not None:
            self._evaluations[result.id] = evaluation
            document = {"schema": METRICS_SCHEMA, "run": self.layout.id, **_plain_dict(evaluation)}
            write_json(self.layout.metrics(result.id), document)
            self._write_figures()
        self.save()

    def prove(self, results: Sequence[TaskResult]) -> None:
        """Take what was found of results that are there already; figures of one that counts for nothing are left out."""
        for result in results:
            self._results[result.id] = result
            if result.touched and self._evaluations.pop(result.id, None) is not None:
                self.layout.metrics(result.id).unlink(missing_ok=True)
                self._write_figures()
        self.save()

    def _write_figures(self) -> None:
        rows = metric_rows(self.layout.id, self.evaluations, self.results)
        write_text(self.layout.metrics_csv, csv_text(METRICS_HEADER, rows))

    def close(self, status: str) -> None:
        """Write down how the run ended."""
        self.status = status
        self.finished = now()
        self.save()

    def save(self) -> None:
        """Write ``run.json``."""
        header = self.header
        environments = {task.environment.plugin: task.environment for task in self.plan.tasks}.values()
        document = {
            "schema": RUN_SCHEMA,
            "id": self.layout.id,
            "name": self.plan.name,
            "profile": header.profile,
            "status": self.status,
            "started": header.started,
            "finished": self.finished,
            "resumed": list(header.resumed),
            "reuse": _plain_dict(header.terms),
            "seed": self.plan.seed,
            "run_file": header.run_file,
            "host": host_facts(header.gpus, header.driver),
            "gpus": [asdict(without_numbers(gpu)) for gpu in header.gpus],
            "jobs": header.jobs,
            "variables": {name: os.environ[name] for name in _TOLD_VARIABLES if name in os.environ},
            "pins": dict(header.pins),
            "environments": [
                {
                    "plugin": e.plugin,
                    "key": e.key,
                    "lock_digest": e.lock_digest,
                    "seal": e.seal,
                    "code": code_document(e),
                }
                for e in environments
            ],
            "data": [
                {"name": data.name, "path": str(data.path), "digest": data.digest, "items": len(data.items)}
                for data in self.plan.data
            ],
            "plan": [
                {"id": task.id, "stage": task.stage, "identity": task.identity, "parts": dict(task.parts)}
                for task in self.plan.tasks
            ],
            "tasks": to_json(self.tasks),
            "evaluations": to_json([replace(evaluation, by_item=()) for evaluation in self.evaluations]),
            "problems": to_json(problems_of(self.results, self.layout, header)),
        }
        write_json(self.layout.run_json, document)

    def report_document(self) -> dict[str, object]:
        """Everything that a report shows, without secrets: the plugin contract's ``ReportDocument``, and more.

        Beyond the contract, tasks have all that `TaskResult` has, ``log_tail`` (where they did not end well) and
        ``provenance``; the document has ``timeline``, ``samples`` and ``repetitions``. See `pipeline.scheduler.reporting`.
        """
        header = self.header
        run = {
            "id": self.layout.id,
            "name": self.plan.name,
            "profile": header.profile,
            "started": header.started,
            "finished": now(),
            "resumed": list(header.resumed),
            "seed": self.plan.seed,
            "host": host_facts(header.gpus, header.driver),
            "code": {
                name: found for task in self.plan.tasks for name, found in code_document(task.environment).items()
            },
        }
        history = History(read_events(self.layout.events))
        return {
            "run": clean(run),
            "tasks": clean([self._told(task) for task in self.plan.tasks if task.id in self._results]),
            "records": [each for task in self.plan.stage("inference") for each in self._records(task)],
            "evaluations": to_json(self.evaluations),
            "repetitions": repetitions(self.plan),
            "timeline": history.timeline(),
            "samples": history.samples(),
        }

    def _told(self, task: Task) -> dict[str, object]:
        result = self._results[task.id]
        fields = {name: value for name, value in _plain_dict(result).items() if name not in _TOLD_ELSEWHERE}
        made_by = provenance(task, result, self.plan, self.header.pins)
        return {**fields, **evidence(result, self.layout), "provenance": made_by}

    def _records(self, task: Task) -> list[dict[str, object]]:
        data = self.plan.data_set(task.data)
        answers = read_answers(self.layout.answers(task.id))
        documents = record_documents(data.items, answers) if data else []
        return [_flat_record(task, document) for document in documents]


def _flat_record(task: Task, document: Mapping[str, object]) -> dict[str, object]:
    item = document["item"]
    facts: dict[str, object] = dict(item) if isinstance(item, Mapping) else {}
    return {
        "task": task.id,
        "data": task.data,
        "item": facts["id"],
        **{name: facts[name] for name in ("image", "question", "doc_class", "question_type")},
        **{name: document[name] for name in ("references", "answer", "error", "latency_s")},
    }


def _plain_dict(value: object) -> dict[str, object]:
    document = to_json(value)
    return document if isinstance(document, dict) else {}


def metric_rows(
    run: str, evaluations: Iterable[Evaluation], results: Iterable[TaskResult]
) -> Iterable[tuple[object, ...]]:
    """Figures in long form, one row a value; an empty class is the whole."""
    plugins = {result.id: result.plugin for result in results}
    for evaluation in evaluations:
        of_task = (run, evaluation.inference, plugins.get(evaluation.inference, ""), evaluation.data)
        for name, figures in (("", evaluation.overall), *evaluation.by_class.items()):
            for metric, value in figures.items():
                yield (*of_task, name, metric, value)


def problems_of(results: Iterable[TaskResult], layout: RunLayout, header: Header) -> tuple[Problem, ...]:
    """What did not go as it should; what was skipped because of it is not told again."""
    problems = []
    for result in results:
        if result.status != "ok" and result.code not in {"skipped", "interrupted"}:
            text = f"{result.id}: {result.status}: {result.error}"
            hint = _again(result, header) or _hint(result, layout)
            problems.append(Problem(result.code or result.status, text, result.plugin, result.log, hint))
        elif without := result.failed_items + result.left_items:
            answers = str(layout.answers(result.id))
            text = f"{result.id}: {without} of {result.items} items have no answer; first: {result.error}"
            hint = _hint(result, layout)
            problems.append(Problem("items-failed", text, result.plugin, answers, hint, severity="warning"))
    return tuple(problems)


def _again(result: TaskResult, header: Header) -> str | None:
    """The command that does a task anew whose result counts for nothing, in an environment that is as it was sealed."""
    again = f"envbuilder run --profile {header.profile} {shlex.quote(header.run_file)}"
    if result.code == "environment-touched":
        return f"envbuilder verify --repair --profile {header.profile} {result.plugin} && {again}"
    return again if result.code == "inputs-touched" else None


def _hint(result: TaskResult, layout: RunLayout) -> str:
    """The command that shows most of what went wrong: one that would show nothing is no help."""
    answers = layout.answers(result.id)
    if result.stage == "inference" and (result.status == "ok" or result.code == "all-items-failed"):
        if any(line.answer is None for line in read_answers(answers).values()):
            return f"grep '\"answer\": null' {shlex.quote(str(answers))}"
    elif result.attempts:
        attempt = result.attempts[-1].id
        for log in (layout.stderr(attempt), layout.stdout(attempt)):
            if log.is_file() and log.stat().st_size:
                return f"tail -n 40 {shlex.quote(str(log))}"
    return f"envbuilder runs show {layout.id}"
