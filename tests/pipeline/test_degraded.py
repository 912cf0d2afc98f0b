from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pipeline_bench import ECHO, REPORT

from pipeline import bootstrap, placement
from pipeline.cli import execute_run
from pipeline.models import Silence

if TYPE_CHECKING:
    from pipeline_bench import Bench

    from pipeline.models import RunOutcome, TaskResult

ROWS = "id;question;answer\n" + "".join(f"{n};q{n};q{n}\n" for n in range(1, 9))


def _plugin(body: str) -> str:
    return (
        "class Plugin:\n    def load(self, context):\n        pass\n    def predict(self, batch):\n"
        f"        {body}\n        return [item.question for item in batch]\n"
    )


MISCOUNTED = "2 batches got another number of answers than they have items: 8 items asked again in parts,"


class Listener(Silence):
    """A reporter that keeps what is noted."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def noted(self, task: str, text: str) -> None:
        assert task
        self.told.append(text)


def _run(bench: Bench, source: str, batch: int = 4) -> tuple[TaskResult, RunOutcome, list[str]]:
    bench.plugin("odd", source)
    bench.plugin("page", REPORT, "report")
    listener = Listener()
    text = f"inference: [{{plugin: odd, batch: {batch}}}]\nreport: [{{plugin: page}}]"
    outcome = execute_run(bench.request(text, ROWS), reporter=listener)
    return outcome.tasks[0], outcome, listener.told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            "if len(batch) > 1: return ['one for all']",
            f"{MISCOUNTED} by 12 more calls; first: predict() got 4 items and gave 1 answers",
        ),
        (
            "if len(batch) > 2: return ['x'] * 9",
            f"{MISCOUNTED} by 4 more calls; first: predict() got 4 items and gave 9 answers",
        ),
        (
            "if len(batch) > 1: raise ValueError('no batches here')",
            "2 batches failed: 8 items asked again in parts, by 12 more calls; first: ValueError: no batches here",
        ),
        (
            "if '3' in [item.id for item in batch] and len(batch) > 1: raise ValueError('three')",
            "1 batch failed: 4 items asked again in parts, by 4 more calls; first: ValueError: three",
        ),
    ],
)
def test_batches_that_were_taken_apart_are_counted(bench: Bench, body: str, told: str) -> None:
    """Screen, record and report tell how many batches were asked again, and the speed compares with no other."""
    task, outcome, shown = _run(bench, _plugin(body))
    assert outcome.ok
    assert task.degraded == (told,)
    assert not task.speed_comparable
    assert shown[-1] == told
    assert shown[0].endswith("; asks the batch again in parts")
    assert len(shown) == 2
    recorded = json.loads((Path(outcome.paths["run"]) / "run.json").read_text())["tasks"][0]
    reported = json.loads(Path(outcome.paths["report"]).read_text())["tasks"][0]
    for found in (recorded, reported):
        assert found["degraded"] == [told]
        assert found["speed_comparable"] is False
        assert found["task_items_per_s"] == pytest.approx(8 / (task.wall_s or 0))


def test_what_did_as_it_was_asked_has_no_such_note(bench: Bench) -> None:
    """Items that fail by themselves degrade nothing; both rates are told."""
    task, _, shown = _run(bench, _plugin("assert len(batch) == 1; assert batch[0].id != '3'"), batch=1)
    assert (task.degraded, task.speed_comparable, shown) == ((), True, [])
    assert task.items_per_s
    assert task.wall_s
    assert task.task_items_per_s == pytest.approx(7 / task.wall_s)
    assert task.items_per_s > (task.task_items_per_s or 0)


def test_a_class_for_single_images_says_that_it_takes_no_batches(bench: Bench) -> None:
    """`batch: 4` was asked for, and each call got one item."""
    task, _, _ = _run(bench, "class Plugin:\n    def predict_on_image(self, image, question):\n        return question")
    assert task.degraded == ("batches of 1, not of 4: predict_on_image() takes one image a call",)


GPU = {"index": 0, "uuid": "GPU-0", "name": "Some GPU", "total_bytes": 8 * 2**30, "free_bytes": 8 * 2**30}
USES = """
import fcntl, json, os, pathlib, time

class Plugin:
    def load(self, context):
        self.size = context.params["size"]
        self.listed = context.params["listed"]

    def predict(self, batch):
        path = pathlib.Path(os.environ["DRIVER"])
        with open(str(path) + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            driver = json.loads(path.read_text())
            (gpu,) = driver["gpus"]
            gpu["free_bytes"] -= self.size
            if self.listed:
                gpu.setdefault("processes", []).append({"pid": os.getpid(), "used_bytes": self.size})
            draft = path.with_suffix(".new")
            draft.write_text(json.dumps(driver))
            draft.replace(path)
        for _ in range(500):
            if json.loads(path.read_text())["gpus"][0]["free_bytes"] == 13 * 2**29:
                break
            time.sleep(0.02)
        time.sleep(0.3)
        return ["x"] * len(batch)
"""


@pytest.mark.parametrize("listed", [True, False])
def test_two_tasks_in_one_slot_have_memory_of_their_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    """The driver's figures of a task's own processes count; the card's, where it tells of none, are marked so."""
    driver = bench.write("driver.json", json.dumps({"version": "1.0", "cuda": [12, 8], "gpus": [GPU]}))
    monkeypatch.setenv("ENVBUILDER_NVML", str(driver))
    monkeypatch.setenv("DRIVER", str(driver))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(placement, "_SAMPLE_EVERY_S", 0.05)
    sizes = {"one": 2**30, "two": 2**29}
    for name in sizes:
        bench.plugin(name, USES)
    entries = ", ".join(
        f"{{plugin: {name}, gpus: 0.5, params: {{size: {size}, listed: {str(listed).lower()}}}}}"
        for name, size in sizes.items()
    )
    outcome = execute_run(bench.request(f"inference: [{entries}]", "id;question;answer\n1;x;x\n"))
    assert outcome.ok, outcome.problems
    found = {task.plugin: task for task in outcome.tasks}
    if listed:
        assert {name: task.peak_gpu_tree_bytes for name, task in found.items()} == sizes
        assert {task.gpu_memory_of for task in found.values()} == {"processes"}
    else:
        assert {task.gpu_memory_of for task in found.values()} == {"card"}
        assert max(task.peak_gpu_tree_bytes or 0 for task in found.values()) == sum(sizes.values())


def test_a_gpu_that_is_held_and_not_used_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of a processor are not passed off as those of the GPU that was asked for."""
    driver = bench.write("driver.json", json.dumps({"version": "1.0", "cuda": [12, 8], "gpus": [GPU]}))
    monkeypatch.setenv("ENVBUILDER_NVML", str(driver))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    bench.plugin(
        "torch",
        "from types import SimpleNamespace\n__version__ = '9.9'\n"
        "cuda = SimpleNamespace(is_available=lambda: False)\ndef manual_seed(seed):\n    pass\n",
    )
    bench.plugin("echo", ECHO)
    task = execute_run(bench.request("inference: [{plugin: echo}]")).tasks[0]
    assert task.degraded == ("runs on the CPU, though it holds gpu0",)


class Heard:
    """A channel that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, kind: str, **body: object) -> None:
        self.sent.append({"type": kind, **body})


def _passed(line: bytes, *, first: bool = True) -> dict[str, Any]:
    heard = Heard()
    bootstrap.pass_on(heard, line, "answers.jsonl:1", first=first)  # type: ignore[arg-type]  # stands in for a channel
    (sent,) = heard.sent
    return sent


def test_an_answers_file_may_begin_with_a_byte_order_mark() -> None:
    """The mark is no part of the first answer; numbers that are none become nothing."""
    sent = _passed(b'\xef\xbb\xbf{"item": 7, "answer": "a", "latency_s": NaN, "score": Infinity}')
    assert (sent["item"], sent["answer"], sent["latency_s"], sent["extra"]) == ("7", "a", None, {"score": None})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"item": null, "answer": "a"}', "item is null"),
        (b'{"item": true, "answer": "a"}', "item is true"),
        (b'{"item": 1.0, "answer": "a"}', "item is 1.0"),
        (b'{"answer": "a"}', "item is null"),
        (b'["item"]', "expected an object with item and answer"),
        (b'{"item": "1", "answer": NaN}', "expected answer to be text, found NaN"),
        (b'{"item": "1", "answer": ["a"]}', 'expected answer to be text, found ["a"]'),
        (b'{"item": "1", "answer": "a", "answer": "b"}', "key 'answer' stands there twice"),
        (b'{"item": "1", "answer": "\xff"}', "found no JSON: 'utf-8' codec can't decode byte 0xff"),
        ('{"item": "1", "answer": "a"}'.encode("utf-16"), "expected JSON in UTF-8, found UTF-16"),
    ],
)
def test_answers_that_are_none_are_refused_with_what_was_found(line: bytes, told: str) -> None:
    """A program's line that is no answer is told with file, line and cause."""
    with pytest.raises(bootstrap.FailureError) as caught:
        _passed(line)
    assert str(caught.value).startswith("answers.jsonl:1: ")
    assert told in str(caught.value)


def test_figures_without_a_value_are_told(bench: Bench) -> None:
    """A metric that is NaN does not vanish in silence; one too large for a number is the judge's mistake."""
    judge = """
from types import SimpleNamespace
class Plugin:
    def load(self, context):
        self.value = context.params["value"]
    def evaluate(self, records):
        overall = {"exact": 1.0, "cer": float("nan"), "large": 10 ** self.value}
        return SimpleNamespace(overall=overall, by_class={"a": {"cer": float("inf")}}, by_item=[], lower_is_better=[])
"""
    bench.plugin("echo", ECHO)
    bench.plugin("judge", judge, "eval")
    text = "inference: [{plugin: echo}]\neval: [{plugin: judge, params: {value: %d}}]"
    outcome = execute_run(bench.request(text % 2))
    assert outcome.evaluations[0].overall == {"exact": 1.0, "large": 100.0}
    told = "2 figures have no value (NaN, infinite or nothing) and are left out: overall.cer, a.cer"
    assert outcome.tasks[1].notes == (told,)
    assert "at most 308 digits" in str(execute_run(bench.request(text % 400)).tasks[1].error)
