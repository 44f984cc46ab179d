"""The report's page: what it says of a study, that it stands alone, and that text stays text."""

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.stub import METRIC, stub_spec
from tune.records import Records, Result
from tune.report.__main__ import main
from tune.report.finalists import finalists_outcome
from tune.report.refresher import Refresher
from tune.report.results import REPORT_FILE, refresh_results, write_results
from tune.report.study_files import read_study
from tune.report.words import verdict
from tune.run_folder import write_specification

RUNGS = (100, 300, 900)
FACTS = {
    "critical_rule": "gripper", "critical_frames": 31, "frames_anywhere": 32, "draws": 4, "horizon_s": 1.0,
    "scored_hz": 30.0, "train_episodes": 9, "val_episodes": 2, "test_episodes": 1,
}  # fmt: skip
DATASET = {"name": "eggs", "root": "/data/eggs", "episodes": 12, "frames": 1435, "fps": 30, "digest": "ab" * 32}
ENDINGS = {100: "pruned", 300: "pruned", 900: "complete"}


def params(number: int, alpha: float | None = None) -> dict:
    spread = number * 0.37 % 1
    return {
        "weighting.alpha": 2 * spread if alpha is None else alpha,
        "optim.lr": 3e-5 * 100 ** (number * 0.61 % 1),
        "optim.batch_size": [8, 16, 32][number % 3],
    }


def make_study(folder: Path, values: list[list[float]], failures: dict[int, str] = {}, **changes) -> Records:  # noqa: B006
    """A study whose trial ``n`` reported ``values[n]`` at the first rungs; trial 0 is the baseline."""
    write_specification(folder, stub_spec(folder.parent, **changes), "study: stub\n", DATASET, FACTS)
    records = Records(folder)
    records.start_session({"python": "3.12.1", "torch": "2.11.0", "commit": "c0ffee" * 6, "dirty": "false"})
    for number, reported in enumerate(values):
        config = {"data": {"train": [{"root": "/data/eggs"}]}}
        records.start_trial(number, None if number else "seed_baseline", params(number), config)
        for rung, value in zip(RUNGS, reported, strict=False):
            records.add_result(number, Result({METRIC: value, "samples_seen": rung}, host="node-a"))
        if number in failures:
            records.end_trial(number, "failed", failures[number])
        elif reported:
            records.end_trial(number, ENDINGS[RUNGS[len(reported) - 1]], None)
    return records


class Text(HTMLParser):
    """What a reader sees of each section, its tables' rows, and every attribute that names another file."""

    def __init__(self, page: str):
        super().__init__()
        self.sections: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.asks_for: list[str] = []
        self.figures: dict[str, dict] = {}
        self._section, self._inside, self._script, self._cell = "head", "", "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.asks_for += [v for k, v in attributes if k in ("src", "href", "action", "data") and not v.startswith("#")]
        self._inside, self._script = tag, known.get("data-for", "")
        if tag == "section":
            self._section = known["id"]
        if tag == "tr":
            self.tables.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.tables[self._section][-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = ""
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        if self._inside == "script" and self._script:
            self.figures[self._script] = json.loads(data)
        if self._inside in ("script", "style"):
            return
        self.sections[self._section] = self.sections.get(self._section, "") + data
        if self._cell:
            self.tables[self._section][-1][-1] += data.strip()


def read(folder: Path) -> Text:
    return Text((folder / REPORT_FILE).read_text(encoding="utf-8"))


VALUES = [[1.0, 0.9, 0.8], [1.2], [0.9, 0.95, 0.6], [0.8, 0.99]]


def test_the_page_tells_the_result_and_the_paired_gain_at_every_rung(tmp_path):
    make_study(tmp_path / "run", VALUES)
    summary = refresh_results(tmp_path / "run", "complete")
    page = read(tmp_path / "run")
    assert "Trial 2 is 25.0% better than seed_baseline" in page.sections["head"]
    assert page.tables["gain"] == [
        ["Samples", "Gain", "Best trial", "seed_baseline", "Difference"],
        ["100", "+10.0%", "0.9", "1", "−0.1"],
        ["300", "−5.6%", "0.95", "0.9", "0.05"],
        ["900", "+25.0%", "0.6", "0.8", "−0.2"],
    ]
    assert "One seed cannot tell a gain from noise" in page.sections["gain"]
    assert summary.report == str(tmp_path / "run" / "report.html")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["gain"] == pytest.approx(0.25)


def test_rungs_trials_cost_and_failures_are_counted(tmp_path):
    make_study(
        tmp_path / "run", [*VALUES, [], [1.1]], {4: "out of memory"}, resources={"gpus": 0.5, "cost_per_hour": 2.0}
    )
    refresh_results(tmp_path / "run", "complete")
    page = read(tmp_path / "run")
    assert page.tables["rungs"][1:] == [
        ["before", "6", "5", "0", "1", "–", "–", "–", "–"],
        ["100", "5", "3", "2", "0", "0.8", "3", "1", "0.93333"],
        ["300", "3", "2", "1", "0", "0.9", "0", "0.95", "0.93333"],
        ["900", "2", "2completed", "0", "0", "0.6", "2", "0.7", "–"],
    ]
    assert [row[0] for row in page.tables["trials"][1:]] == ["2", "0seed_baseline", "3", "5", "1", "4"]
    assert page.tables["failures"][1:] == [["out of memory", "4"]]
    # of 5 trials at 900 samples two took all, one 300 and two 100 each
    assert "saved 2,200 samples" in page.sections["cost"]
    assert "49% of the 4,500" in page.sections["cost"]
    assert "GPU-hours" in page.sections["cost"]


def test_a_trial_that_failed_late_is_not_among_the_best(tmp_path):
    make_study(tmp_path / "run", [[1.0, 0.9, 0.8], [0.5, 0.4], [0.9]], {1: "out of memory"})
    refresh_results(tmp_path / "run", "complete")
    assert [row[0] for row in read(tmp_path / "run").tables["trials"][1:]] == ["0seed_baseline", "2", "1"]


def test_what_was_measured_and_what_ran_is_told(tmp_path):
    make_study(tmp_path / "run", VALUES)
    refresh_results(tmp_path / "run", "complete")
    page = read(tmp_path / "run")
    assert "31, by the rule “gripper” (near a gripper's motion)" in page.sections["objective"]
    assert "9 to train, 2 to compare, 1 kept for a test" in page.sections["objective"]
    for fact in ("2.11.0", "c0ffeec0ffee", "node-a", "1,435 frames", "/data/eggs"):
        assert fact in page.sections["origin"]


def test_the_page_asks_nothing_of_any_other_file(tmp_path):
    make_study(tmp_path / "run", VALUES)
    refresh_results(tmp_path / "run", "complete")
    text = (tmp_path / "run" / REPORT_FILE).read_text(encoding="utf-8")
    assert Text(text).asks_for == ["data:,"]
    assert "default-src 'none'" in text
    assert "url(" not in re.findall(r"<style>(.*?)</style>", text, re.S)[0]


ATTACK = '</script><script>alert("x")</script><img src=x onerror=alert(1)> & {{ 7*7 }}'


def test_text_of_users_stays_text(tmp_path):
    search = {
        "weighting.alpha": {"type": "float", "low": 0.0, "high": 2.0},
        "optim.lr": {"type": "float", "low": 3e-5, "high": 3e-3, "log": True},
        "optim.batch_size": {"type": "categorical", "choices": [8, 16, 32]},
    }
    base = {"weighting.alpha": 0.0, "optim.lr": 1e-4, "optim.batch_size": 8}
    folder = tmp_path / "run"
    write_specification(folder, stub_spec(tmp_path, search=search, warm_start={ATTACK: base}), f"# {ATTACK}\n")
    records = Records(folder)
    records.start_session()
    for number in (0, 1):
        records.start_trial(number, None if number else ATTACK, params(number), {})
        records.add_result(number, Result({METRIC: 0.5, "samples_seen": 100}, host=ATTACK))
    records.end_trial(1, "failed", ATTACK)
    refresh_results(folder, "complete")
    text = (folder / REPORT_FILE).read_text(encoding="utf-8")
    assert '<script>alert("x")' not in text
    assert "<img" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    page = Text(text)
    for section in ("failures", "trials", "gain", "origin"):
        assert ATTACK in page.sections[section]
    # plotly reads a few tags in its texts, so these are escaped once more
    assert "&lt;img" in json.dumps(page.figures["curves"])
    assert "<img" not in json.dumps(page.figures["curves"])


def test_figures_hold_every_trials_values(tmp_path):
    make_study(tmp_path / "run", VALUES)
    refresh_results(tmp_path / "run", "complete")
    figures = read(tmp_path / "run").figures
    curves = {trace["name"]: trace for trace in figures["curves"]["figure"]["data"]}
    assert curves["best: trial 2"]["x"][:3] == [100, 300, 900]
    assert curves["best: trial 2"]["y"][:3] == [0.9, 0.95, 0.6]
    assert curves["stopped early"]["y"] == [1.2, None, 0.8, 0.99, None]
    assert len(figures["curves"]["views"]["Hours"][0]["x"]) == len(curves)
    assert len([name for name in figures if name.startswith("slice-")]) == 3
    alpha = figures["slice-0"]["figure"]["data"][0]  # at the first rung, where all are
    assert alpha["x"] == pytest.approx([params(number)["weighting.alpha"] for number in range(4)])
    assert alpha["y"] == [1.0, 1.2, 0.9, 0.8]
    lines = figures["parallel"]["figure"]["data"]
    assert sum(y is None for trace in lines for y in trace["y"]) == 4 + 2  # each trial, and the two that stand out


def test_too_few_results_have_no_importances_and_many_find_the_parameter_that_acts(tmp_path, recwarn):
    make_study(tmp_path / "few", VALUES)
    refresh_results(tmp_path / "few", "complete")
    few = read(tmp_path / "few")
    assert "importances" not in few.figures
    assert "at least 15 results of equal budget" in few.sections["parameters"]
    assert "there are 4 of them at 100 samples" in few.sections["parameters"]
    make_study(tmp_path / "many", [[abs(params(n)["weighting.alpha"] - 1.3)] for n in range(40)])
    refresh_results(tmp_path / "many", "complete")
    many = read(tmp_path / "many")
    (bars,) = many.figures["importances"]["figure"]["data"]
    assert bars["y"][-1] == "alpha"  # the uppermost
    assert bars["x"][-1] > 0.6
    assert "on 40 results, all at 100 samples" in many.sections["parameters"]
    assert [str(one.message) for one in recwarn if "optuna" in one.filename or "tune/" in one.filename] == []


def test_a_parameter_that_few_trials_have_is_left_out_of_the_importances(tmp_path):
    search = {
        "weighting.alpha": {"type": "float", "low": 0.0, "high": 2.0},
        "optim.schedule": {"type": "categorical", "choices": ["constant", "cosine"]},
        "optim.final_lr": {
            "type": "float",
            "low": 1e-7,
            "high": 1e-5,
            "log": True,
            "when": {"optim.schedule": "cosine"},
        },
    }
    folder = tmp_path / "run"
    write_specification(folder, stub_spec(tmp_path, search=search, warm_start={}), "")
    records = Records(folder)
    records.start_session()
    for number in range(30):
        cosine = {"optim.schedule": "cosine", "optim.final_lr": 1e-6} if number % 6 == 0 else {}
        point = {"weighting.alpha": number / 15, "optim.schedule": "constant", **cosine}
        records.start_trial(number, None, point, {})
        records.add_result(number, Result({METRIC: abs(number / 15 - 1.3), "samples_seen": 100}))
    refresh_results(folder, "complete")
    page = read(folder)
    (bars,) = page.figures["importances"]["figure"]["data"]
    assert set(bars["y"]) == {"alpha", "schedule"}
    assert "fewer than 15 results have it: optim.final_lr (5)" in page.sections["parameters"]


@pytest.mark.parametrize(
    ("values", "headline"),
    [
        ([], "No trial has reported a score"),
        ([[]], "No trial has reported a score"),
        ([[0.5, 0.5, 0.4], [0.9]], "Nothing beats seed_baseline"),
        ([[0.5], [0.9, 0.6]], "Trial 1 is the best"),
        ([[float("nan")], [0.9]], "Trial 1 is the best"),
        ([[0.5], [0.5], [0.5]], "Nothing beats seed_baseline"),
    ],
)
def test_any_study_has_a_page(tmp_path, values, headline):
    make_study(tmp_path / "run", values)
    refresh_results(tmp_path / "run", "complete")
    assert headline in read(tmp_path / "run").sections["head"]


@pytest.mark.parametrize(
    ("errors", "headline"),
    [([0.4, 0.9, 1.6], "Within noise: trial 1 is 3.3% better"), ([0.86, 0.88, 0.91], "Trial 1 is 11.7% better")],
)
def test_the_headline_says_when_a_gain_is_within_noise(tmp_path, errors, headline):
    records = make_study(tmp_path / "run", [])
    for number, rows in enumerate(([1.0, 1.0, 1.0], errors)):
        records.start_trial(number, None if number else "seed_baseline", params(number), {})
        metrics = {METRIC: sum(rows) / 3, "samples_seen": 900}
        episodes = {METRIC: [(episode, 10, error) for episode, error in enumerate(rows)]}
        records.add_result(number, Result(metrics, episodes=episodes))
        records.end_trial(number, "complete", None)
    refresh_results(tmp_path / "run", "complete")
    head = read(tmp_path / "run").sections["head"]
    assert headline in head
    assert "over 3 episodes" in head


def told(mean, low, high):
    return {"mean": mean, "low": low, "high": high}


@pytest.mark.parametrize(
    ("gain", "acting", "headline", "tile"),
    [
        (told(0.2, 0.1, 0.3), None, "Trial 3 is 20.0% better than seed_baseline", ("+20.0%", "on test episodes")),
        (told(0.2, -0.1, 0.5), None, "Within noise: trial 3 is 20.0% better", ("+20.0%", "within noise")),
        (told(-0.3, -0.35, -0.25), None, "Trial 3 is 30.0% worse than seed_baseline", ("-30.0%", "on test episodes")),
        # acting decided: whatever the test error says, the headline is of what was achieved
        (
            told(-0.3, -0.35, -0.25),
            {"score": "eggs placed", "gain": told(0.15, 0.05, 0.25)},
            "Trial 3 has the most eggs placed, +15.0 points over seed_baseline",
            ("+15.0 points", "trial 3, eggs placed"),
        ),
        (
            told(0.2, 0.1, 0.3),
            {"score": "eggs placed", "gain": told(0.05, -0.05, 0.15)},
            "Within noise: trial 3 has the most eggs placed, +5.0 points over",
            ("+5.0 points", "trial 3, eggs placed, within noise"),
        ),
        (None, {"score": "Q", "gain": None}, "Trial 3 has the most Q", ("–", "no baseline to compare with")),
        (None, None, "Trial 3 has the lowest test error", ("–", "no baseline to compare with")),
    ],
)  # fmt: skip
def test_where_finalists_were_tested_headline_and_tile_are_theirs(gain, acting, headline, tile):
    outcome = {
        "contenders": [{"name": "trial 3", "gain": gain}],
        "winner": "trial 3",
        "verdict": "The whole sentence.",
        "acting": acting,
    }
    found = finalists_outcome(outcome, "seed_baseline")
    assert found["headline"].startswith(headline)
    assert found["value"] == tile[0]
    assert found["note"].endswith(tile[1])
    assert found["detail"] == "The whole sentence."


@pytest.mark.parametrize("acting", [None, {"score": "eggs placed", "gain": None}])
def test_a_baseline_that_wins_the_test_is_the_headline(tmp_path, acting):
    make_study(tmp_path / "run", VALUES)
    study = read_study(tmp_path / "run")
    found = {
        "contenders": [{"name": "seed_baseline", "gain": None}],
        "winner": "seed_baseline",
        "verdict": "The whole sentence.",
        "acting": acting,
    }
    summary = replace(study.summary("complete"), finalists=found)
    assert verdict(summary, study.trials[0]) == {
        "headline": "Nothing beats seed_baseline",
        "detail": "The whole sentence.",
    }


def test_a_study_that_runs_says_so_and_one_whose_process_died_too(tmp_path):
    make_study(tmp_path / "run", [[1.0, 0.9, 0.8], [0.9], []])
    refresh_results(tmp_path / "run", "running")
    running = read(tmp_path / "run")
    assert "Trial 0" in running.sections["best"]
    assert "The policy is written when the search ends." in running.sections["best"]
    assert "1 running" in running.sections["head"]
    # the next one is asked for by hand, and no process holds the study's lock
    assert refresh_results(tmp_path / "run").state == "interrupted"
    assert "its process ended before the study did" in read(tmp_path / "run").sections["head"]


def test_the_policy_is_kept_as_long_as_it_is_the_best_trials(tmp_path):
    folder = tmp_path / "run"
    records = make_study(folder, VALUES)
    summary, artifacts = write_results(read_summary(folder), folder, records)
    (folder / "best").mkdir()
    (folder / "best" / "config.json").write_text(
        json.dumps({"input_features": {"observation.state": {"type": "STATE", "shape": [256]}}})
    )
    assert folder / REPORT_FILE in artifacts
    assert refresh_results(folder).checkpoint == str(folder / "best")
    code = read(folder).sections["best"]
    assert f"folder = '{folder / 'best'}'" in code
    assert "'observation.state': state,  # float32, as the dataset has it, shape (256)" in code
    records.start_trial(4, None, params(4), {})
    records.add_result(4, Result({METRIC: 0.1, "samples_seen": 900}))
    records.end_trial(4, "complete", None)
    refresh_results(folder, "running")  # and the driver was killed: the files are those of trial 2 still
    for _ in range(2):
        again = refresh_results(folder)
        assert (again.state, again.best.number) == ("interrupted", 4)
        assert (again.checkpoint, again.config) == (None, None)
    assert "--resume" in read(folder).sections["best"]
    records.end_trial(4, "failed", "diverged")
    assert refresh_results(folder).checkpoint == str(folder / "best")


def read_summary(folder: Path):
    from tune.report.study_files import read_study

    return read_study(folder).summary("complete")


def test_a_report_that_cannot_be_written_costs_no_result(tmp_path, monkeypatch, caplog):
    records = make_study(tmp_path / "run", VALUES)

    def broken(*arguments):
        raise RuntimeError("no ink")

    monkeypatch.setattr("tune.report.page.page", broken)
    summary, artifacts = write_results(read_summary(tmp_path / "run"), tmp_path / "run", records)
    assert summary.report is None
    assert all(file.is_file() for file in artifacts)
    assert "report.html could not be written (RuntimeError: no ink)" in caplog.text


def test_the_command_writes_the_page_and_answers_a_wrong_folder_in_one_line(tmp_path, capsys):
    make_study(tmp_path / "run", VALUES)
    assert main([str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'report.html'}\n"
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: RUN: {tmp_path} holds no study.resolved.yaml; give a study's folder")
    assert error.count("\n") == 1
    assert not (tmp_path / REPORT_FILE).exists()


def test_a_study_fetched_from_a_bucket_is_not_said_to_run(tmp_path, monkeypatch):
    make_study(tmp_path / "bucket" / "run", VALUES)
    refresh_results(tmp_path / "bucket" / "run", "complete")
    monkeypatch.chdir(tmp_path)
    assert main([f"file://{tmp_path}/bucket/run"]) == 0
    assert json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())["state"] == "complete"


def wait_for(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(0.01)
    return condition()


def test_while_the_search_runs_the_report_is_written_again_one_at_a_time(tmp_path):
    written: list[tuple[Path, str]] = []
    refresher = Refresher(tmp_path, lambda *what: written.append(what), first_after_s=0, every_s=3600)
    for _ in range(50):
        refresher.on_step_end(0, [])
    refresher.on_experiment_end([])
    refresher.on_step_end(0, [])  # the next is not due for an hour
    refresher.on_experiment_end([])
    assert written == [(tmp_path, "running")]


def test_a_report_that_fails_does_not_hurt_the_search_and_is_said_once(tmp_path, caplog):
    def fails(*what):
        raise RuntimeError("disk full")

    refresher = Refresher(tmp_path, fails, first_after_s=0, every_s=0)
    for _ in range(5):
        refresher.on_step_end(0, [])
        refresher.on_experiment_end([])
    assert caplog.text.count("the report could not be refreshed (RuntimeError: disk full)") == 1


def test_finalists_replace_the_warning_that_one_seed_proves_nothing(tmp_path):
    from tune.report.finalists import finalists_view, intervals_of
    from tune.report.page import page
    from tune.report.study_files import read_study

    make_study(tmp_path / "run", VALUES)
    study = read_study(tmp_path / "run")

    class WithFinalists(type(study.summary("complete"))):
        def to_dict(self):
            gains = [{"trial": 2, "rung": 900, "mean": 0.25, "low": -0.02, "high": 0.4, "episodes": 2}]
            return super().to_dict() | {"finalists": FINALISTS, "gains": gains}

    told = Text(page(study, WithFinalists(**vars(study.summary("complete")))))
    assert "trial 2 is better than seed_baseline on test episodes" in told.sections["gain"]
    assert "One seed cannot tell" not in told.sections["gain"]
    assert ["trial 2winner", "2", "3", "0.5", "0.45 to 0.55", "+20.0%", "+5.0% to +30.0%"] in told.tables["gain"]
    assert ["900", "+25.0%", "−2.0% to +40.0% (2 episodes)", "0.6", "0.8", "−0.2"] in told.tables["gain"]
    assert "one training failed" in told.sections["gain"]
    assert finalists_view(None) is None
    assert intervals_of({"best": None}) == {}


FINALISTS = {
    "verdict": "trial 2 is better than seed_baseline on test episodes",
    "winner": "trial 2",
    "metric": "test/critical_action_mse",
    "seeds": 3,
    "test_episodes": 4,
    "missing": "one training failed",
    "contenders": [
        {"name": "seed_baseline", "trial": 0, "seeds": [1, 2, 3],
         "test": {"mean": 0.6, "low": 0.55, "high": 0.7}, "gain": None},
        {"name": "trial 2", "trial": 2, "seeds": [1, 2, 3],
         "test": {"mean": 0.5, "low": 0.45, "high": 0.55}, "gain": {"mean": 0.2, "low": 0.05, "high": 0.3}},
    ],
}  # fmt: skip
