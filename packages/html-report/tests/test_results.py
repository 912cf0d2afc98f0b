"""Names, rankings and verdicts, before anything is written."""

import math

import pytest
from documents import evaluation, record, run, small, task

from html_report.failures import LONGEST, failed_items
from html_report.names import name_device, name_models, name_variants
from html_report.results import quantile, read_metrics, read_results
from html_report.tables import class_rows, environments, result_rows
from html_report.verdicts import decide


def test_models_are_named_by_what_tells_them_apart() -> None:
    """Parameters are named only where they differ between tasks of one plugin."""
    tasks = [
        task("a", plugin="crnn", params={"beam": 1, "dpi": 300}),
        task("b", plugin="crnn", params={"beam": 4, "dpi": 300}),
        task("c", plugin="rapid", params={"threads": 2}),
        task("d", plugin="crnn", params={"dpi": 300}),
    ]
    assert name_variants(tasks) == {
        "a": "crnn (beam=1)",
        "b": "crnn (beam=4)",
        "c": "rapid",
        "d": "crnn (beam=default)",
    }


def test_models_keep_their_name_on_every_data_set() -> None:
    """One model on two data sets has one name; repeated on one data set it is numbered."""
    tasks = [task("a", plugin="crnn"), task("b", plugin="crnn", data="pages"), task("c", plugin="crnn")]
    assert name_models(tasks) == {"a": "crnn #1", "b": "crnn", "c": "crnn #2"}


def test_devices_are_named_plainly() -> None:
    """A processor is called CPU and a GPU by its own name."""
    assert name_device(task("a")) == "CPU"
    assert name_device(task("a", device="cuda", device_name="NVIDIA L4")) == "NVIDIA L4"
    assert name_device(task("a", device="cuda", device_name="")) == "cuda device"


@pytest.mark.parametrize(("share", "value"), [(0, 1.0), (0.25, 1.75), (0.5, 2.5), (0.95, 3.85), (1, 4.0)])
def test_quantiles_are_interpolated(share: float, value: float) -> None:
    """Quantiles of 1, 2, 3, 4 are those of R's default, type 7 of Hyndman and Fan 1996: quantile(1:4, share)."""
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == pytest.approx(value)
    assert quantile([], share) is None


def test_best_model_comes_first() -> None:
    """Results are sorted by the first metric in its own sense, and what has no figure comes last."""
    tasks = [task("broken", status="failed"), task("good"), task("better")]
    for name, lower in (("cer", ["cer"]), ("accuracy", [])):
        figures = {"good": 0.2, "better": 0.1} if lower else {"good": 0.1, "better": 0.2}
        evaluations = [evaluation(model, {name: value}, lower_is_better=lower) for model, value in figures.items()]
        results = read_results({"run": run(), "tasks": tasks, "records": [], "evaluations": evaluations})
        assert [result.model for result in results] == ["better", "good", "broken"]


def test_metrics_of_two_judges_are_told_apart() -> None:
    """Two eval plugins that use one name get a column each, with the plugin's name."""
    document = small(
        tasks=[task("ocr-a"), task("strict", "eval"), task("lenient", "eval")],
        evaluations=[
            evaluation("ocr-a", {"exact": 0.5}, eval="strict"),
            evaluation("ocr-a", {"exact": 0.9, "cer": 0.1}, eval="lenient"),
        ],
    )
    assert [metric.title for metric in read_metrics(document)] == [
        "Exact match (strict)",
        "Exact match (lenient)",
        "CER",
    ]
    assert list(read_results(document)[0].overall.values()) == [0.5, 0.9, 0.1]


def test_figures_that_are_no_numbers_are_left_out() -> None:
    """NaN, infinity and text never reach a table or chart as a figure."""
    by_item = [{"item": "1", "cer": math.nan, "note": "blurred"}]
    document = small(evaluations=[evaluation("ocr-a", {"cer": math.inf, "exact": 1.0}, by_item=by_item)])
    result = read_results(document)[0]
    assert [metric.name for metric in result.overall] == ["exact"]
    assert result.by_item == {"1": {}}


def test_best_figures_are_marked() -> None:
    """The best of a column is marked in its own sense; a column in which all are equal has none."""
    document = small(
        tasks=[task("a", items_per_s=5.0), task("b", items_per_s=9.0)],
        evaluations=[
            evaluation("a", {"cer": 0.1, "anls": 0.8, "wer": 0.5}),
            evaluation("b", {"cer": 0.3, "anls": 0.9, "wer": 0.5}),
        ],
    )
    rows = result_rows(read_results(document), read_metrics(document), {})
    assert [[cell.best for cell in row.metrics] for row in rows] == [[True, False, False], [False, True, False]]
    assert [row.speed.best for row in rows] == [False, True]


def test_unfinished_task_is_not_the_fastest() -> None:
    """A model that was stopped half way has no speed to compare, and wins nothing by it."""
    records = [record("1", "x", latency_s=0.001), record("1", "x", task="slow", latency_s=2.0)]
    document = small(tasks=[task("ocr-a", status="timeout"), task("slow")], records=records, evaluations=[])
    decision = decide(read_results(document))[0]
    assert decision.speed is not None
    assert [leader.model for leader in decision.speed.leaders] == ["slow"]
    assert [row.median.text for row in result_rows(read_results(document), [], {})] == ["–", "2.00 s"]


def test_verdict_names_leaders_and_the_next() -> None:
    """Figures that are written the same lead together; the others follow in order."""
    figures = {"a": 0.1001, "b": 0.1004, "c": 0.3, "d": 0.2}
    document = small(
        tasks=[task(name) for name in figures],
        records=[],
        evaluations=[
            evaluation(name, {"cer": value}, by_class={"x": {"cer": value}}) for name, value in figures.items()
        ],
    )
    decision = decide(read_results(document))[0]
    assert decision.quality is not None
    assert decision.quality.title == "Lowest CER"
    assert [leader.model for leader in decision.quality.leaders] == ["a", "b"]
    assert [other.model for other in decision.quality.others] == ["d", "c"]
    assert [verdict.scope for verdict in decision.classes] == ["x"]


def test_different_devices_are_warned_of() -> None:
    """Latencies taken on different devices are not compared without a word."""
    tasks = [task("a"), task("b", device="cuda", device_name="NVIDIA L4")]
    notes = [decide(read_results(small(tasks=some, records=[], evaluations=[])))[0].note for some in (tasks, tasks[:1])]
    assert "different devices" in notes[0]
    assert notes[1] == ""


def test_classes_of_each_data_set_are_compared_apart() -> None:
    """A class that two data sets share is judged in each of them."""
    document = small(
        tasks=[task("a"), task("b"), task("c", data="pages")],
        evaluations=[
            evaluation("a", {"cer": 0.1}, by_class={"x": {"cer": 0.1}}),
            evaluation("b", {"cer": 0.2}, by_class={"x": {"cer": 0.2}}),
            evaluation("c", {"cer": 0.9}, by_class={"x": {"cer": 0.9}}, data="pages"),
        ],
    )
    rows = class_rows(read_results(document), read_metrics(document), {})
    assert [(row.data, row.model, row.metrics[0].best) for row in rows] == [
        ("lines", "a", True),
        ("lines", "b", False),
        ("pages", "c", False),
    ]


def test_failed_items_are_put_together_by_error() -> None:
    """The most frequent error comes first; a long one keeps its end, where the cause stands."""
    records = [record(str(n), None, error="ValueError: bad") for n in range(9)]
    records.append(record("x", None, error="y" * LONGEST + "cause"))
    records.append(record("z", None, error=None))
    found = failed_items(read_results(small(records=records)))
    assert [(group.count, len(group.items)) for group in found] == [(9, 6), (1, 1), (1, 1)]
    assert found[1].error.startswith("…")
    assert found[1].error.endswith("cause")
    assert found[2].error == "no answer and no error"


def test_environments_are_listed_once() -> None:
    """Tasks that shared an environment share its row, and Python comes first."""
    tasks = [
        task("a", versions={"numpy": "2.1", "python": "3.11"}),
        task("a", id="a2", versions={"numpy": "2.1", "python": "3.11"}),
    ]
    found = environments(small(tasks=tasks))
    assert len(found) == 1
    assert found[0].plugins == ("a",)
    assert [name for name, _ in found[0].versions] == ["python", "numpy"]


def test_speeds_of_degraded_tasks_compare_with_no_others() -> None:
    """What did otherwise than it was asked has a star, is never the fastest, and the note says so."""
    odd = {
        **task("odd", items_per_s=90.0),
        "degraded": ["2 batches failed"],
        "speed_comparable": False,
        "task_items_per_s": 4.0,
    }
    well = {**task("well", items_per_s=9.0), "task_items_per_s": 3.0}
    records = [record("1", "x", task="odd", latency_s=0.001), record("1", "x", task="well", latency_s=2.0)]
    document = small(tasks=[odd, well], records=records, evaluations=[])
    rows = {row.result.model: row for row in result_rows(read_results(document), [], {})}
    assert [cell.text for cell in (rows["odd"].speed, rows["odd"].whole_speed)] == ["90.0/s*", "4.00/s*"]
    assert [cell.text for cell in (rows["well"].speed, rows["well"].whole_speed)] == ["9.00/s", "3.00/s"]
    assert not rows["odd"].speed.best
    decision = decide(read_results(document))[0]
    assert decision.speed is not None
    assert [leader.model for leader in decision.speed.leaders] == ["well"]
    assert "do not compare: odd" in decision.note


def test_memory_of_the_whole_card_is_marked() -> None:
    """Where the driver tells no processes apart, the figure is that of all who used the card."""
    used = {**task("a"), "peak_gpu_tree_bytes": 2**30, "gpu_memory_of": "card"}
    (row,) = result_rows(read_results(small(tasks=[used], records=[], evaluations=[])), [], {})
    assert row.peak_gpu.endswith("(card)")
