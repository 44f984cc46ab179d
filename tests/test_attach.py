"""Results of evaluators beside a trial's record: read as they were written, kept once, shown everywhere."""

import errno
import json
import sys
import tempfile
from dataclasses import replace

import pytest
from mlflow.tracking import MlflowClient

from smolvla_core.checkpoint import save_state
from smolvla_core.closed_loop.environment import EnvSpec
from smolvla_core.closed_loop.results import document, write_results
from smolvla_core.closed_loop.scores import summarise
from smolvla_core.closed_loop.stage import Episode
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial
from tests.fake_env import NAME
from tests.stub import METRIC, stub_spec
from tests.test_report_page import Text, make_study
from tune.attach import main
from tune.closed_loop import achieved, attach, difference, evaluator_name, pooled, read_results
from tune.closed_loop_checks import refuse_environment, refuse_unsuited
from tune.closed_loop_runs import let_act, trained_acts
from tune.closed_loop_spec import ClosedLoop
from tune.finalists import SHARED, study_summary
from tune.fixed_runs import run_config
from tune.ray_session import Brake
from tune.records import ACTS, FINALISTS, Records, Result
from tune.report import closing_lines
from tune.report.study_files import BEST_OF, BEST_POLICY, read_study
from tune.source import SpecError
from tune.tracking import NullTracker, make_tracker

GARDEN = EnvSpec("garden", max_seconds=20.0)
OFFICIAL_2025 = {
    "agent_distance": {"base": 2.0, "left": 0.0, "right": 1.2},
    "normalized_agent_distance": {"base": 1.5, "left": float("inf"), "right": 1.1},
    "q_score": {"final": 0.4},
    "time": {"simulator_steps": 500, "simulator_time": 16.67, "normalized_time": 1.6},
}
OFFICIAL_2026 = OFFICIAL_2025 | {
    "task": "hiding_Easter_eggs",
    "instance_id": 302,
    "rollout_id": 0,
    "steps": 500,
    "success": False,
}


def garden_results(folder, eggs, first=301, n_action_steps=5):
    """What ``smolvla_core.evaluate`` writes of so many eggs placed on each instance."""
    episodes = [Episode(first + i, share, share / 2, share == 1, 600, 20.0) for i, share in enumerate(eggs)]
    policy = {"policy": "best", "n_action_steps": n_action_steps}
    return write_results(folder, document(GARDEN, policy, 0, episodes, summarise(episodes)))


def official(folder, name, **changes):
    """A file of BEHAVIOR's evaluator."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(json.dumps(OFFICIAL_2025 | changes))
    return file


def test_both_forms_of_the_official_evaluator_are_read(tmp_path):
    old = read_results(official(tmp_path, "hiding_Easter_eggs_301_0.json"))
    assert (old.evaluator, old.name) == ("behavior", "hiding_Easter_eggs_301_0.json")
    (rollout,) = old.rollouts
    assert (rollout.task, rollout.instance, rollout.number) == ("hiding_Easter_eggs", 301, 0)
    assert (rollout.q, rollout.success, rollout.eggs_placed) == (0.4, False, None)
    (solved,) = read_results(official(tmp_path, "hiding_Easter_eggs_301_1.json", q_score={"final": 1.0})).rollouts
    assert (solved.number, solved.success) == (1, True)
    new = read_results(official(tmp_path, "any name.json", **OFFICIAL_2026))
    assert new.name == "hiding_Easter_eggs_302_0.json"
    assert new.rollouts[0].instance == 302


def test_what_is_no_result_is_refused_in_one_line(tmp_path):
    def refused(file, message):
        with pytest.raises(DataError, match=message) as error:
            read_results(file)
        assert "\n" not in str(error.value)

    refused(tmp_path / "none.json", "no such file")
    (tmp_path / "text.json").write_text("{")
    refused(tmp_path / "text.json", "is no JSON")
    (tmp_path / "list.json").write_text("[1]")
    refused(tmp_path / "list.json", "is no result of BEHAVIOR's evaluator or of smolvla_core.evaluate")
    refused(official(tmp_path, "eggs.json"), "its name must be TASK_INSTANCE_ROLLOUT.json")
    refused(official(tmp_path, "eggs_1_0.json", q_score={"final": float("nan")}), "a score is nan")
    refused(official(tmp_path, "eggs_1_0.json", q_score={}), "KeyError: 'final'")


def test_scores_of_seeds_are_pooled_and_gains_are_paired(tmp_path):
    def acts(name, eggs):
        record = tmp_path / name
        attach(record, garden_results(tmp_path / "out", eggs))
        return achieved(record)[0]

    base = [acts("a", [0, 1 / 3, 2 / 3, 0]), acts("b", [0, 0, 1, 1 / 3])]
    better = [acts("c", [1 / 3, 2 / 3, 1, 1 / 3]), acts("d", [1 / 3, 1 / 3, 1, 1])]
    assert pooled(base)["eggs_placed"].mean == pytest.approx((0 + 1 / 3 + 2 / 3 + 0 + 0 + 0 + 1 + 1 / 3) / 8)
    assert pooled(better)["success"].mean == pytest.approx(3 / 8)
    gain = difference(better, base, "eggs_placed")
    assert gain.mean == pytest.approx((5 - 7 / 3) / 8)
    assert gain.low < gain.mean < gain.high
    # not the same instances, so not to be paired
    attach(tmp_path / "e", garden_results(tmp_path / "out", [1, 1, 1, 1], first=302))
    assert difference([achieved(tmp_path / "e")[0]], base[:1], "eggs_placed") is None
    # what an evaluator does not tell is not made up
    attach(tmp_path / "f", official(tmp_path, "hiding_Easter_eggs_301_0.json"))
    assert list(achieved(tmp_path / "f")[0].scores()) == ["q", "success"]


@pytest.fixture
def study(tmp_path):
    """Trial 2 is the best at the highest rung."""
    make_study(tmp_path / "run", [[0.9, 0.85, 0.8], [1.1], [0.8, 0.75, 0.7]])
    with_best(tmp_path / "run", trial=2)
    return tmp_path / "run"


def with_best(folder, trial):
    """With a policy in ``best/`` that is a trial's at the highest rung."""
    (folder / BEST_POLICY).mkdir()
    (folder / BEST_OF).write_text(json.dumps({"trial": trial, "rung": 900, "finalist": None}))


def test_a_study_that_cannot_be_written_is_one_line(study, tmp_path, monkeypatch, capsys):
    def read_only(dir):
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    assert main([str(study), "--trial", "2", str(garden_results(tmp_path / "out", [1, 0]))]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: RUN: {study} cannot be written (Read-only file system); give a folder")
    assert not (study / "trials" / "002" / "closed_loop").exists()


def test_results_are_kept_once_and_stand_in_summary_and_report(study, tmp_path, capsys):
    results = garden_results(tmp_path / "out", [1, 1 / 3, 2 / 3, 1])
    rollouts = [official(tmp_path / "logs", f"hiding_Easter_eggs_{n}_0.json", q_score={"final": n / 4}) for n in (1, 2)]
    assert main([str(study), "--trial", "BEST", str(results), *map(str, rollouts)]) == 0
    printed = capsys.readouterr().out
    assert "3 files of 3 attached to trial 2" in printed
    assert "garden   4 rollouts: eggs_placed 75.0 %, q 37.5 %, success 50.0 %" in printed
    rows = json.loads((study / "summary.json").read_text())["closed_loop"]
    assert [(row["name"], row["evaluator"], row["rollouts"]) for row in rows] == [
        ("trial 2", "behavior", 2),
        ("trial 2", "garden", 4),
    ]
    assert rows[0]["scores"]["q"]["mean"] == pytest.approx(0.375)
    assert rows[1]["scores"]["eggs_placed"]["mean"] == pytest.approx(0.75)
    table = Text((study / "report.html").read_text()).tables["gain"]
    assert ["Policy", "Evaluator", "Rollouts", "Eggs placed", "Q", "Success"] in table
    assert next(row for row in table if row[1] == "garden")[3].startswith("75.0% (")
    assert next(row for row in table if row[1] == "behavior")[3] == "–"

    kept = {path: path.stat().st_mtime_ns for path in (study / "trials").rglob("*.json")}
    assert main([str(study), "--trial", "2", *map(str, rollouts), str(results)]) == 0
    assert "0 files of 3 attached" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (study / "trials").rglob("*.json")} == kept
    assert json.loads((study / "summary.json").read_text())["closed_loop"] == rows
    # another evaluation takes the place of the one before, a rollout that of the same rollout
    garden_results(tmp_path / "out", [0, 0])
    official(tmp_path / "logs", "hiding_Easter_eggs_1_0.json", q_score={"final": 1.0})
    assert main([str(study), "--trial", "2", str(results), str(rollouts[0])]) == 0
    rows = json.loads((study / "summary.json").read_text())["closed_loop"]
    assert (rows[0]["scores"]["q"]["mean"], rows[1]["rollouts"]) == (0.75, 2)


def test_mistakes_change_nothing(study, tmp_path, capsys):
    good = garden_results(tmp_path / "out", [1])
    (tmp_path / "bad.json").write_text("{}")

    def says(*arguments):
        assert main(list(map(str, arguments))) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "is no result of BEHAVIOR's evaluator" in says(study, "--trial", "2", good, tmp_path / "bad.json")
    assert "there is no trial '7' in" in says(study, "--trial", "7", good)
    assert "there is no finalist '0' in" in says(study, "--trial", "finalist 0", good)
    assert "holds no study.resolved.yaml" in says(tmp_path, "--trial", "2", good)
    assert not list((study / "trials").rglob("closed_loop"))
    empty = tmp_path / "empty"
    make_study(empty, [])
    assert "has no best trial yet" in says(empty, "--trial", "best", good)


def test_best_is_refused_where_best_holds_another_policy(study, tmp_path, capsys):
    good = str(garden_results(tmp_path / "out", [1]))
    records = Records(study)
    records.start_trial(3, None, {}, {})
    records.add_result(3, Result({METRIC: 0.1, "samples_seen": 900}))
    assert main([str(study), "--trial", "BEST", good]) == 2
    said = capsys.readouterr().err
    assert f"{study}/best may be another trial's than what is best now (study interrupted); give the number" in said
    assert said.count("\n") == 1
    assert main([str(study), "--trial", "2", good]) == 0
    assert not achieved(records.folder(3))


def test_mlflow_is_asked_with_the_password_that_is_not_kept(tmp_path, monkeypatch, capsys):
    uri, asked = "postgresql://ada:secret@host/mlflow", []
    make_study(tmp_path / "run", [[0.9]], tracking={"uri": uri})
    monkeypatch.setattr("tune.attach.attach_to_run", lambda run_dir, uri, *rest: asked.append(uri))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = [str(tmp_path / "run"), "--trial", "0", str(garden_results(tmp_path / "out", [1]))]
    assert main(arguments) == 1
    assert "MLflow could not be told: the password of tracking.uri (postgresql://***@host" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(arguments) == 0
    assert asked == [uri]


def test_mlflow_has_the_scores_and_the_files_once(tmp_path):
    run_dir = tmp_path / "runs" / "stub-1"
    records = make_study(run_dir, [[0.9, 0.85, 0.8]], tracking={"experiment": "eggs"})
    with_best(run_dir, trial=0)
    spec = read_study(run_dir).spec
    tracker = make_tracker(spec.tracking.uri, spec.experiment, run_dir)
    tracker.start_study(run_dir, spec.to_dict(), "study: stub", None, False)
    tracker.start_trial(0, "seed_baseline", {}, {})
    tracker.end_trial(0, "complete", None)
    tracker.end_study({"state": "complete"})
    results = garden_results(tmp_path / "out", [1, 0])
    for _ in range(2):
        assert main([str(run_dir), "--trial", "best", str(results)]) == 0
    client = MlflowClient(f"sqlite:///{run_dir.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("eggs").experiment_id
    (run,) = client.search_runs([experiment], "tags.`trial.number` = '0'")
    assert run.data.metrics["closed_loop/garden/eggs_placed"] == 0.5
    assert run.data.metrics["closed_loop/garden/rollouts"] == 2
    (point,) = client.get_metric_history(run.info.run_id, "closed_loop/garden/eggs_placed")
    assert point.step == 900
    assert run.info.status == "FINISHED"
    (file,) = client.list_artifacts(run.info.run_id, "closed_loop/garden")
    assert file.path == "closed_loop/garden/results.json"
    assert achieved(records.folder(0))[0].evaluator == "garden"


# --- the finalists act ---


class Told(NullTracker):
    def __init__(self):
        self.said = {}

    def log_result(self, number, metrics, curve=()):
        self.said[number] = metrics


@pytest.fixture(scope="module")
def state(eggs_root, cache_dir, tmp_path_factory):
    """A finalist's checkpoint as Ray keeps it, of a policy that was hardly trained."""
    folder = tmp_path_factory.mktemp("finalist")
    config = tiny_trial(eggs_root, cache_dir, state__preset="winner23", eval__horizon_s=0.3)
    save_state(prepare(config).learner, folder / "state")
    return folder


def finalists(run_dir, checkpoint, names=("seed_baseline", "trial 2")):
    records = Records(run_dir, FINALISTS)
    searched = {trial.name or f"trial {trial.number}": trial.params for trial in Records(run_dir).trials()}
    for number, name in enumerate(names):
        config = run_config(stub_spec(run_dir), {**searched.get(name, {}), "runtime.seed": 1}, SHARED).to_dict()
        records.start_trial(number, name, {"runtime.seed": 1}, config)
        rows = {METRIC.replace("val/", "test/"): [(0, 4, 0.5 + number), (1, 4, 0.5)]}
        metrics = {"samples_seen": 900, METRIC: 0.5, **{key: 0.5 for key in rows}}
        records.add_result(number, Result(metrics, checkpoint=str(checkpoint), episodes=rows))
        records.end_trial(number, "complete", None)
    return records


def all_act(closed_loop, records, *rest):
    let_act(trained_acts(closed_loop, records.trials(), "finalist"), records, *rest)


def test_finalists_act_once_and_the_baseline_is_what_they_are_measured_against(study, state):
    pond = ClosedLoop(env=NAME, instances="1-6", picture_size=32, max_seconds=0.4, n_action_steps=4)
    records, tracker, lines = finalists(study, state), Told(), []
    all_act(pond, records, tracker, lines.append, Brake(None))
    assert lines[0] == f"Closed loop: 2 trainings in {NAME}, 6 instances each"
    evaluator = "tests.fake_env_Pond"
    told = tracker.said["finalist 1"]
    assert told["samples_seen"] == 900
    assert 0 <= told[f"closed_loop/{evaluator}/eggs_placed"] <= 1
    spec = stub_spec(study.parent, finalists={"k": 1, "seeds": 1}, closed_loop=pond.model_dump())
    trials = Records(study).trials()
    summary = study_summary(spec, trials, records.trials(), state="complete", reason=None, seconds=1.0)
    base, best = summary.closed_loop
    assert (base["name"], best["name"], best["rollouts"]) == ("seed_baseline", "trial 2", 6)
    assert base["gain"] is None
    # one policy under two names: the same episodes, so no difference
    assert best["scores"] == base["scores"]
    assert best["gain"]["mean"] == 0
    assert any(line.startswith("  trial 2") and "+0.0 points" in line for line in closing_lines(summary, None))

    # what has been done is not done again; another question is another evaluation
    lines.clear()
    again = Told()
    all_act(pond, records, again, lines.append, Brake(None))
    assert lines == []
    assert again.said == tracker.said  # the tracker may have missed it
    for other in ({"n_action_steps": 2}, {"instruction": "water the flowers"}):
        lines.clear()
        pond = pond.model_copy(update=other)
        all_act(pond, records, tracker, lines.append, Brake(None))
        assert len(lines) == 3


def test_what_is_attached_never_takes_the_place_of_the_study_s_own_acting(study, state, tmp_path):
    pond = ClosedLoop(env=NAME, instances="1-3", picture_size=32, max_seconds=0.4)
    records, lines = finalists(study, state, ("a",)), []
    folder = records.folder(0)
    attach(folder, like(pond, tmp_path / "before", 1.0))  # before the study acts
    assert not [act for act in trained_acts(pond, records.trials(), "finalist") if act.is_done]
    all_act(pond, records, NullTracker(), lines.append, Brake(None))
    own, kept = achieved(folder)
    assert (own.evaluator, own.is_own) == (evaluator_name(NAME), True)
    assert (kept.evaluator, [one.eggs_placed for one in kept.rollouts]) == (f"{own.evaluator}_attached", [1.0] * 3)
    assert attach(folder, like(pond, tmp_path / "after", 0.5))
    assert achieved(folder)[0].rollouts == own.rollouts
    assert [one.eggs_placed for one in achieved(folder)[1].rollouts] == [0.5] * 3
    assert [act for act in trained_acts(pond, records.trials(), "finalist") if act.is_done]


def like(closed_loop, out, share):
    """What ``smolvla_core.evaluate`` writes of the same instances in the same environment."""
    episodes = [Episode(number, share, share, False, 600, 20.0) for number in closed_loop.numbers]
    return write_results(out, document(closed_loop.environment, {"policy": "best"}, 0, episodes, summarise(episodes)))


def test_one_that_cannot_act_is_a_line_and_the_end_of_time_ends_it(study, state, tmp_path):
    records, lines = finalists(study, state, ("a", "b")), []

    def evaluate(policy, closed_loop, out, brake):
        if not lines[1:]:
            raise ConfigError("no\nroom")
        assert (policy / "config.json").is_file()
        out.mkdir(parents=True)
        garden_results(out, [1.0])

    all_act(ClosedLoop(), records, NullTracker(), lines.append, Brake(None), evaluate)
    assert lines[1:] == ["finalist 0 (a): could not act: no", "finalist 1 (b): eggs_placed 100.0 % of 1 rollout"]
    assert len((study / ACTS).read_text().splitlines()) == 2  # the hours that it took are used, whatever came of it
    lines.clear()
    all_act(ClosedLoop(), records, NullTracker(), lines.append, Brake(-1.0), evaluate)
    assert lines[-1] == "The closed loop was ended (out of time); give more budget.hours and continue with --resume"
    bare = finalists(tmp_path / "other", tmp_path, ("a",))
    lines.clear()
    all_act(ClosedLoop(), bare, NullTracker(), lines.append, Brake(None), evaluate)
    assert lines[1:] == ["finalist 0 (a): left no policy that could act"]


@pytest.mark.parametrize("error", [KeyError("eggs_placed"), PermissionError("read-only"), ValueError("dry\npond")])
def test_whatever_an_environment_raises_is_a_line_and_the_others_go_on(study, state, error):
    records, lines = finalists(study, state, ("a", "b")), []

    def evaluate(policy, closed_loop, out, brake):
        raise error

    all_act(ClosedLoop(), records, NullTracker(), lines.append, Brake(None), evaluate)
    words = str(error).splitlines()[0]
    assert lines[1:] == [
        f"finalist 0 (a): could not act: {type(error).__name__}: {words}",
        f"finalist 1 (b): could not act: {type(error).__name__}: {words}",
    ]


def test_a_score_that_is_no_number_is_a_line_and_is_not_kept(study, state):
    records, lines = finalists(study, state, ("a",)), []
    pond = ClosedLoop(env="tests.fake_env:Unscored", instances="4", picture_size=32, max_seconds=0.2)
    all_act(pond, records, NullTracker(), lines.append, Brake(None))
    assert "could not act: tests.fake_env:Unscored: instance 4 ended with" in lines[1]
    assert "and q nan; both must be finite" in lines[1]
    assert records.trials()[0].achieved == ()


def test_a_full_disk_is_no_policys_fault(study, state):
    def evaluate(policy, closed_loop, out, brake):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        all_act(ClosedLoop(), finalists(study, state), NullTracker(), [].append, Brake(None), evaluate)


def test_a_closed_loop_that_cannot_be_is_refused_before_the_start(tmp_path, eggs_root, cache_dir, monkeypatch):
    def refused(**section):
        with pytest.raises(ConfigError) as error:
            stub_spec(tmp_path, finalists={"k": 1}, closed_loop=section)
        return str(error.value)

    with pytest.raises(SpecError, match="is what the finalists act in, and the search has none"):
        stub_spec(tmp_path, closed_loop={})
    assert "'9-7' runs backwards; give 7-9" in refused(instances="9-7")
    assert "unknown key; did you mean 'picture_size'" in refused(picture_siz=96)
    assert "choose.steps: unknown key; valid here: instances, n_action_steps" in refused(choose={"steps": [5]})
    assert stub_spec(tmp_path, finalists={"k": 1}, closed_loop={"instances": [5, 7]}).closed_loop.numbers == (5, 7)

    with pytest.raises(SpecError, match="there is no 'gardn'"):
        refuse_environment(ClosedLoop(env="gardn"))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "mujoco", None)
        without.delitem(sys.modules, "smolvla_core.garden", raising=False)
        with pytest.raises(SpecError, match="smolvla-tune"):
            refuse_environment(ClosedLoop())
    pond = ClosedLoop(env=NAME)
    refuse_environment(pond)
    trial = prepare(tiny_trial(eggs_root, cache_dir, eval__horizon_s=0.3, state__preset="top32"))
    interface, config = trial.learner.interface, trial.learner.config
    refuse_unsuited(pond, interface, [config])
    with pytest.raises(SpecError, match="no multiple of a policy's 12.5 Hz"):
        refuse_unsuited(pond, replace(interface, fps=25), [config.with_values({"data.frame_stride": 2})])
    with pytest.raises(SpecError, match="is 11; it cannot exceed policy.chunk_size"):
        refuse_unsuited(pond.model_copy(update={"n_action_steps": 11}), interface, [config])
    views = tuple(replace(view, dataset_key="observation.images.top") for view in interface.cameras)
    with pytest.raises(SpecError, match="looks? through 'observation.images.top', which is none of"):
        refuse_unsuited(pond, replace(interface, cameras=views), [config])
