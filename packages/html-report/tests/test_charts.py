"""Charts as data."""

from pathlib import Path

import plotly.graph_objects as go
import pytest
from documents import evaluation, realistic, record, small, task

from html_report.charts import MODELS, POINTS, class_chart, latency_chart, leading, trade_chart
from html_report.params import Params
from html_report.results import read_metrics, read_results
from html_report.view import build_view


def test_charts_are_valid_figures(tmp_path: Path) -> None:
    """Plotly's own schema accepts every chart's data and layout."""
    document = realistic(tmp_path)
    results, metrics = read_results(document), read_metrics(document)
    charts = [class_chart(results, metrics[0], 0), trade_chart(results, metrics[0]), latency_chart(results)]
    for chart in charts:
        assert chart is not None
        go.Figure(chart.spec)


def test_charts_say_in_words_what_they_show(tmp_path: Path) -> None:
    """Whoever doesn't see a chart is told every figure in it."""
    document = realistic(tmp_path)
    results, metrics = read_results(document), read_metrics(document)
    chart = class_chart(results, metrics[0], 0)
    assert chart is not None
    for result in results[:3]:
        assert f"{result.model}, line-ru: {result.by_class['line-ru'][metrics[0]]:.3f}" in chart.summary


def test_charts_of_nothing_are_not_drawn() -> None:
    """Without figures or latencies there is no chart, rather than an empty one."""
    document = small(records=[record("1", "x", latency_s=None)])
    results, metrics = read_results(document), read_metrics(document)
    assert latency_chart(results) is None
    assert trade_chart(results, metrics[0]) is None
    assert class_chart(read_results(small(evaluations=[])), metrics[0], 0) is None


def test_charts_of_a_single_figure_are_not_drawn() -> None:
    """One bar or one point compares nothing: the table says it, and latencies take the place."""
    results, metrics = read_results(small()), read_metrics(small())
    assert class_chart(results, metrics[0], 0) is None
    assert trade_chart(results, metrics[0]) is None
    view = build_view(small(), Params())
    assert [chart.id for chart in view.first_charts] == ["latency"]
    assert view.latency_chart is None


def test_names_are_not_taken_for_markup() -> None:
    """Plotly reads some HTML in names: what a name holds is escaped."""
    tasks = [task("ocr-a", plugin="<b>ocr</b>"), task("text-metrics", "eval")]
    figures = [evaluation("ocr-a", {"cer": 0.1}, by_class={"x": {"cer": 0.1}})]
    document = small(tasks=tasks, evaluations=figures)
    chart = class_chart(read_results(document), read_metrics(document)[0], 0)
    assert chart is not None
    assert chart.spec["data"][0]["name"] == "&lt;b&gt;ocr&lt;/b&gt;"  # type: ignore[index]


def test_long_distributions_are_thinned() -> None:
    """A curve of many items has few points, from the fastest item to the slowest."""
    records = [record(str(n), "x", latency_s=(n + 1) / 1000) for n in range(5000)]
    chart = latency_chart(read_results(small(records=records)))
    assert chart is not None
    curve = chart.spec["data"][0]  # type: ignore[index]
    assert len(curve["x"]) == POINTS + 1
    assert curve["x"][-1] == pytest.approx(5000)
    assert curve["y"][-1] == pytest.approx(100)


def test_widely_spread_latencies_get_a_logarithmic_axis() -> None:
    """Milliseconds and minutes fit in one chart."""
    records = [record("1", "x", latency_s=0.005), record("2", "x", latency_s=90.0)]
    chart = latency_chart(read_results(small(records=records)))
    assert chart is not None
    assert chart.spec["layout"]["xaxis"]["type"] == "log"  # type: ignore[index]


def test_charts_keep_to_the_leading_models() -> None:
    """With more models than colours and shapes can tell apart, the best are drawn."""
    names = [f"m{n:02}" for n in range(MODELS + 4)]
    evaluations = [evaluation(name, {"cer": 1 - n / 100}) for n, name in enumerate(names)]
    results = read_results(small(tasks=[task(name) for name in names], evaluations=evaluations))
    assert [result.model for result in leading(results)] == names[:3:-1]
