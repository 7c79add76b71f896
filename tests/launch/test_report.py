"""Reports: what is read from run folders, the table, the page, the curves."""

import base64
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aijax.errors import DataError
from aijax.launch import curves
from aijax.launch.report_html import render_page
from aijax.launch.runs import best_first, best_value, config_differences, find_runs, main_metric, metric_names

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def runs(tmp_path, make_run):
    """Three runs in a folder: a finished one, a failed one, and one that a kill cut short."""
    for index, (rate, status) in enumerate([(1e-3, "finished"), (3e-4, "failed"), (1e-4, None)]):
        records = [{"step": step, "seconds": step / 10, "train/loss": 2 / step + index} for step in range(1, 20)]
        records += [{"step": 10, "test/accuracy": 0.5}, {"step": 19, "test/accuracy": 0.9 - index / 10}]
        summary = status and {
            "status": status,
            "step": 19,
            "total_steps": 19 if status == "finished" else 40,
            "seconds": 75.2,
            "parameters": 12345,
            "metrics": {"test/accuracy": 0.9 - index / 10, "train/loss": 0.1 + index},
            "message": "" if status == "finished" else "train/loss is nan at <step> 19",
        }
        config = {"seed": 0, "optimizer": {"lr": rate, "betas": [0.9, 0.99]}} | ({"extra": 1} if index == 2 else {})
        folder = make_run(tmp_path / "all" / f"lr={rate}", config, records, summary, '{"step": 2' if index == 2 else "")
        if index == 0:
            (folder / "figures").mkdir()
            (folder / "figures" / "confusion.png").write_bytes(PNG)
            (folder / "figures" / "curves.png").write_bytes(PNG)
    return tmp_path / "all"


def test_runs_are_found_in_a_tree_and_read(runs):
    found = find_runs([runs, runs / "lr=0.001"])
    assert [run.name for run in found] == ["lr=0.0001", "lr=0.0003", "lr=0.001"]
    cut, failed, finished = found
    assert finished.metrics == {"test/accuracy": 0.9, "train/loss": 0.1}
    assert finished.curves["test/accuracy"] == [(10, 0.5), (19, 0.9)]
    assert finished.config["optimizer.betas"] == (0.9, 0.99)
    assert [figure.name for figure in finished.figures] == ["confusion.png"]
    assert failed.summary["status"] == "failed"
    assert cut.summary == {"status": "unfinished", "step": 19}
    assert cut.notes == ("the last line of metrics.jsonl is cut short and was left out",)
    assert cut.metrics["test/accuracy"] == pytest.approx(0.7)


def test_a_resumed_run_counts_the_later_value_of_a_step(tmp_path, make_run):
    records = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 2.5}, {"step": 3, "loss": 1.0}]
    (run,) = find_runs([make_run(tmp_path / "a", records=records)])
    assert run.curves == {"loss": [(1, 3.0), (2, 2.5), (3, 1.0)]}


def test_a_line_cut_short_in_the_middle_is_noted(tmp_path, make_run):
    folder = make_run(tmp_path / "a", records=[{"step": 1, "loss": 3.0}])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo{"step": 2, "loss": 1.0}\n[1]\n\n{"step": 3, "loss": NaN}\n')
    (run,) = find_runs([folder])
    assert [note.partition(" of")[0] for note in run.notes] == ["line 2", "line 3"]
    assert [step for step, _ in run.curves["loss"]] == [1, 3]


def test_only_fields_that_differ_are_differences(runs):
    differences = config_differences(find_runs([runs]))
    assert list(differences) == ["extra", "optimizer.lr"]
    assert [repr(value) for value in differences["extra"]] == ["1", "(no such field)", "(no such field)"]
    assert differences["optimizer.lr"] == [1e-4, 3e-4, 1e-3]


def test_runs_are_ranked_by_their_main_metric(runs):
    found = find_runs([runs])
    assert metric_names(found) == ["test/accuracy", "train/loss"]
    assert [run.name for run in best_first(found, "test/accuracy")] == ["lr=0.001", "lr=0.0003", "lr=0.0001"]
    assert best_first(found, "train/loss")[0].name == "lr=0.001"
    assert best_value(found, "train/loss") == 0.1 and best_value(found[:1], "train/loss") is None
    assert main_metric(["train/accuracy", "test/loss"]) == "test/loss"
    assert main_metric(["train/loss", "train/accuracy"]) == "train/accuracy"
    assert main_metric([]) is None


def test_the_command_prints_a_table_and_writes_a_page(runs, aijax, tmp_path):
    answer = aijax("report", runs)
    assert answer.status == 0 and answer.err == ""
    assert answer.out.index("lr=0.001 ") < answer.out.index("lr=0.0003 ") < answer.out.index("lr=0.0001 ")
    assert "optimizer.lr" in answer.out and "cut short" in answer.out and "unfinished" in answer.out
    assert (runs / "report.html").is_file()
    other = tmp_path / "deep" / "page.html"
    assert aijax("report", runs / "lr=0.001", runs / "lr=0.0003", "--output", other).status == 0
    assert other.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("argv", [("nowhere",), (".",), ("file",)])
def test_a_folder_without_runs_is_one_sentence(tmp_path, monkeypatch, aijax, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    answer = aijax("report", *argv)
    assert answer.status == 2 and answer.err.startswith(f"aijax: {argv[0]}: ") and answer.err.count("\n") == 1


def test_a_broken_run_folder_is_refused_by_name(tmp_path, make_run):
    folder = make_run(tmp_path / "a")
    (folder / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: not valid JSON"):
        find_runs([folder])


class Checker(HTMLParser):
    """Collects what a page refers to, and whether its tags are closed in order."""

    VOID = ("meta", "img", "path", "circle", "br")

    def __init__(self):
        super().__init__()
        self.references, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_self_contained_and_well_formed(runs):
    page = render_page(find_runs([runs]))
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.references) == 1 and checker.references[0].startswith("data:image/png;base64,")
    assert base64.b64decode(checker.references[0].partition(",")[2]) == PNG
    assert not re.search(r"https?://|@import|url\(|<script", page)
    text = " ".join(checker.text)
    for words in ("lr=0.001", "test/accuracy", "optimizer.lr", "cut short", "1 min 15 s", "12,345", "19 of 40"):
        assert words in text
    assert "nan at &lt;step&gt; 19" in page
    assert page.count("<svg viewBox") == 2 + 3


def test_a_page_of_one_run_shows_its_config(runs):
    page = render_page(find_runs([runs / "lr=0.001"]))
    assert "Where the configs differ" not in page and "optimizer.betas" in page


POINTS = st.lists(
    st.tuples(st.integers(0, 10**9), st.floats(allow_nan=True, allow_infinity=True, width=32)), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(st.lists(POINTS, min_size=1, max_size=3))
def test_every_point_that_is_finite_is_drawn_inside_its_chart(drawn):
    svg = curves.chart([(number, sorted(points)) for number, points in enumerate(drawn)], "any")
    finite = [value for points in drawn for _, value in points if math.isfinite(value)]
    assert bool(svg) == bool(finite)
    assert "nan" not in svg and "inf" not in svg
    for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', svg):
        assert 0 <= float(x) <= 480 and 0 <= float(y) <= 290
    assert svg.count("<circle") == len(finite)


def test_a_long_curve_is_drawn_as_means_within_a_band():
    curve = [(step, math.sin(step)) for step in range(5000)]
    svg = curves.chart([(0, curve)], "sine")
    assert 'class="band c0"' in svg and len(svg) < 12_000


def test_a_wide_range_gets_a_logarithmic_axis():
    assert "logarithmic" in curves.chart([(0, [(0, 100.0), (1, 0.1)])], "loss")
    assert "logarithmic" not in curves.chart([(0, [(0, 100.0), (1, -0.1)])], "loss")


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low, span):
    numbers = curves.ticks(low, low + span)
    assert len(numbers) <= 12
    assert all(low - 1e-6 * span - 1e-9 <= number <= low + span * (1 + 1e-6) + 1e-9 for number in numbers)
