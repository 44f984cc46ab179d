"""The recipe's claims: what is trained, by which rule they are judged, and a whole run on stubs."""

import json
from dataclasses import replace

import pytest
from mlflow.tracking import MlflowClient

from smolvla_core.cache.plan import CachePlan
from tests.fake_env import NAME
from tests.spec_yaml import written
from tests.stub import METRIC, stub_spec, stub_trainable
from tests.test_attach import garden_results
from tune.claim_verdicts import CHANGES, CLAIMS, evaluated, table_lines, variants, verdict
from tune.claims import Trainings, _new, _parse, _resumed, main
from tune.closed_loop import Achieved, read_results
from tune.closed_loop_spec import ClosedLoop
from tune.effects import Effect
from tune.intervals import Interval
from tune.preflight import Facts
from tune.ray_session import Brake
from tune.records import Outcome, Records, Result, TrialRecord
from tune.run_folder import write_specification
from tune.tracking import NullTracker


def test_each_change_is_trained_alone_and_all_together(tmp_path):
    found = variants(stub_spec(tmp_path))
    assert list(found) == ["seed_baseline", "alpha 1", "batch 16", "chunk 30", "together"]
    base = found["seed_baseline"]
    assert base == {
        "weighting.scheme": "temporal", "weighting.alpha": 0.0, "optim.lr": 1e-4, "optim.batch_size": 8,
        "policy.chunk_size": 50,
    }  # fmt: skip
    for name, change in CHANGES.items():
        assert {key: value for key, value in found[name].items() if base[key] != value} == change
    together = {key: value for change in CHANGES.values() for key, value in change.items()}
    assert found["together"] == base | together
    assert variants(stub_spec(tmp_path, warm_start={}))["seed_baseline"]["policy.chunk_size"] == 50


@pytest.mark.parametrize(
    ("value", "at_most", "found"),
    [
        (Interval(0.2, 0.05, 0.35), False, "supported"),
        (Interval(0.2, -0.05, 0.45), False, "undecided"),  # it may be chance
        (Interval(0.12, 0.05, 0.19), False, "undecided"),  # something, but less than promised, or as much
        (Interval(0.1, 0.06, 0.14), False, "not supported"),  # a gain, and surely a smaller one
        (Interval(-0.1, -0.2, 0.0), False, "not supported"),
        (Interval(0.2, 0.05, 0.35), True, "undecided"),  # an upper bound supports nothing
        (Interval(-0.1, -0.2, 0.0), True, "not supported"),
        (Interval(0.2), False, "undecided"),
        (None, False, "not measured"),
    ],
)
def test_the_rule(value, at_most, found):
    assert verdict(Effect(value, at_most=at_most), promised=0.15) == found


def test_success_is_what_is_placed_in_the_closed_loop(tmp_path):
    spec = stub_spec(tmp_path)

    def training(name, seed, eggs):
        acted = ()
        if eggs:
            found = read_results(garden_results(tmp_path / f"{name} {seed}", eggs))
            acted = (Achieved("garden", (), found.rollouts, found.settings, 0.0),)
        result = Result({"samples_seen": 900, METRIC: 0.5}, episodes={METRIC: [(0, 4, 0.5), (1, 4, 0.4)]})
        return TrialRecord(
            seed, name, {"runtime.seed": seed}, {}, 0.0, (result,), Outcome("complete", None), achieved=acted
        )

    def placed(records, evaluator="garden"):
        rows = evaluated(spec, records, evaluator)
        lines = [line for line in table_lines(rows) if "alpha 1" in line and "eggs placed" in line]
        (row,) = [row for row in rows if row["change"] == "alpha 1" and row["claim"].startswith("success")]
        return row, lines[0]

    base = [training("seed_baseline", seed, [0, 0, 1, 0, 0, 0, 0, 0]) for seed in (0, 1)]
    row, line = placed([*base, *(training("alpha 1", seed, [1, 1, 1, 1, 1, 1, 1, 0]) for seed in (0, 1))])
    assert row["effect"]["mean"] == pytest.approx(6 / 8)
    assert row["effect"]["low"] > 0.15
    assert row["verdict"] == "supported"
    assert "| +75.0 points (" in line
    row, line = placed([*base, training("alpha 1", 0, [1] * 8), training("alpha 1", 1, [])])
    assert (row["verdict"], row["note"]) == ("not measured", "not all of these trainings have acted")
    assert placed(base, None)[0]["verdict"] == "not measured"
    idle = [training(name, seed, [0] * 8) for name in ("seed_baseline", "alpha 1") for seed in (0, 1)]
    row, line = placed(idle)
    assert (row["verdict"], row["note"]) == ("not measured", "neither places an egg")


def test_trainings_act_once_they_are_trained(tmp_path, monkeypatch):
    spec, lines = stub_spec(tmp_path), []
    records, pond = Records(tmp_path), ClosedLoop(env=NAME, instances="1-2", choose=None)
    for number, role in enumerate(("seed_baseline", "alpha 1")):
        records.start_trial(number, role, {"runtime.seed": 0}, {})
        records.add_result(number, Result({"samples_seen": 900, METRIC: 0.5}))
        if number == 0:
            records.end_trial(number, "complete", None)
    monkeypatch.setattr("tune.report.results.write_policy", lambda *_: True)

    def evaluate(policy, closed_loop, out, brake):
        garden_results(out, [1, 0], first=1)

    trainings = Trainings(spec, tmp_path, 1, 2, pond, say=lines.append, evaluate=evaluate)
    done = trainings._acted(records.trials(), records, NullTracker(), Brake(None))
    assert [len(run.achieved) for run in done] == [1, 0]  # the other is not trained to its end
    assert lines[0] == f"Closed loop: 1 training in {NAME}, 2 instances each"
    assert trainings._acted(done[:0], records, NullTracker(), Brake(None)) == []


def test_what_trainings_act_in_outlives_an_interruption(tmp_path):
    pond = ClosedLoop(env=NAME, instances="1-2")
    plan = {"seeds": 1, "points": 2, "closed_loop": pond.model_dump()}
    write_specification(tmp_path, stub_spec(tmp_path), "study: stub")
    (tmp_path / "claims_plan.json").write_text(json.dumps(plan))
    assert _resumed(tmp_path).closed_loop == pond


def test_wrong_input_is_one_line(tmp_path, capsys):
    assert main([]) == 2
    assert "give a search's YAML" in capsys.readouterr().err
    assert main(["--resume", str(tmp_path)]) == 2
    assert "holds no claims_plan.json" in capsys.readouterr().err
    (tmp_path / "claims_plan.json").write_text("{}")
    assert main(["--resume", str(tmp_path), "--set", "optim.samples=9"]) == 2
    assert "may be set, or start anew" in capsys.readouterr().err


@pytest.mark.parametrize("ignored", [["search.yaml"], ["--seeds", "5"], ["--points", "4"]])
def test_a_resume_refuses_what_it_would_not_heed(tmp_path, capsys, ignored):
    with pytest.raises(SystemExit) as ended:
        main([*ignored, "--resume", str(tmp_path)])
    assert ended.value.code == 2
    assert "leave SEARCH.yaml, --seeds and --points out" in capsys.readouterr().err
    (tmp_path / "claims_plan.json").write_text("{}")
    for section in ("finalists.k=2", "closed_loop.env=garden"):
        assert main(["--resume", str(tmp_path), "--set", section]) == 2
        assert "only budget, resources, max_concurrent may be set" in capsys.readouterr().err


def test_the_trainings_draw_from_the_frames_that_a_search_s_would(tmp_path, monkeypatch, capsys):
    plan = CachePlan("/cache", "embeddings", 10_000, 400_000, 10**9, 1234)
    monkeypatch.setattr("tune.claims._checked", lambda trainings: Facts({}, {}, plan))
    trainings = _new(_parse([str(written(tmp_path, {38: f"storage: {tmp_path}"})), "--dry-run"]))
    assert trainings.spec.trial["data"]["frames"] == 1234
    assert "all trials draw from the same 1,234 training frames" in capsys.readouterr().out


def test_a_resume_has_the_same_data_and_its_password_again(tmp_path, monkeypatch, capsys):
    uri = "postgresql://ada:secret@host/mlflow"
    data = {"root": "/data/eggs", "digest": "a", "frames": 1000}
    write_specification(tmp_path, stub_spec(tmp_path, tracking={"uri": uri}), "study: stub", data)
    (tmp_path / "claims_plan.json").write_text(json.dumps({"seeds": 1, "points": 2}))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("tune.claims._checked", lambda trainings: Facts(data, {}))
    assert main(["--resume", str(tmp_path), "--dry-run"]) == 2
    assert "postgresql://***@host/mlflow) is not kept in" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["--resume", str(tmp_path), "--dry-run"]) == 0
    assert _resumed(tmp_path, ["budget.hours=2"]).spec.tracking.uri == uri
    changed = data | {"digest": "b", "frames": 999}
    monkeypatch.setattr("tune.claims._checked", lambda trainings: Facts(changed, {}))
    assert main(["--resume", str(tmp_path)]) == 2
    assert "/data/eggs has changed since" in capsys.readouterr().err


@pytest.mark.slow
def test_the_claims_are_judged_by_trainings_that_go_on_where_they_were_left(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    spec = stub_spec(tmp_path, max_concurrent=2, tracking={"uri": uri, "experiment": "stub"})
    lines: list[str] = []
    taken = {"trainable": stub_trainable, "say": lines.append}
    some = Trainings(spec, tmp_path / "run", 1, 5, **taken)
    write_specification(tmp_path / "run", spec, "study: stub")
    some.run()
    (tmp_path / "run" / "claims_plan.json").write_text(json.dumps({"seeds": 2, "points": 5}))
    late = replace(_resumed(tmp_path / "run", ["budget.hours=1.0e-9"]), **taken)
    assert late.run(resume=True)[1] is False  # the hours count, those of earlier sessions too
    assert sum("started" in line for line in lines) == 5
    assert lines[-1].startswith("Ended early: ")
    assert _resumed(tmp_path / "run").spec.budget.hours == 1.0e-9  # until another is given
    rows, whole = replace(_resumed(tmp_path / "run", ["budget.hours=1"]), **taken).run(resume=True)
    assert whole
    assert sum("started" in line for line in lines) == 10  # five variants, two seeds, each once
    assert len(rows) == 4 * len(CLAIMS)
    assert {row["seeds"] for row in rows} == {2}
    by = {(row["change"], row["measured"]): row for row in rows}
    # the stub's optimum is at alpha 1.3 and batch 16; its chunk does nothing
    hard = "fall of val/critical_action_mse"
    assert by["alpha 1", hard]["effect"]["mean"] > 0.3
    assert abs(by["chunk 30", hard]["effect"]["mean"]) < 0.05
    assert by["chunk 30", hard]["verdict"] == "not supported"
    seconds = by["batch 16", "seconds saved to the baseline's final error"]["effect"]["mean"]
    assert seconds > by["batch 16", "samples saved to the baseline's final error"]["effect"]["mean"]
    assert by["alpha 1", "fall of val/eef_error_m"]["verdict"] == "not measured"
    placed = "eggs placed in the closed loop, in points"
    assert (by["together", placed]["verdict"], by["together", placed]["note"]) == ("not measured", "no closed loop")
    document = json.loads((tmp_path / "run" / "claims.json").read_text())
    assert document["rows"] == rows
    table = (tmp_path / "run" / "claims.md").read_text().splitlines()
    assert table == list(table_lines(rows))
    assert table[-1].endswith("| 2 | not measured (no closed loop) |")
    assert evaluated(spec, [])[0]["verdict"] == "not measured"

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("stub").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(runs) == 1 + 10
    assert parent.info.status == "FINISHED"
    assert "| alpha 1 | +15-25 % on hard segments |" in parent.data.tags["mlflow.note.content"]
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"claims.json", "claims.md"}
    (child,) = [run for run in runs if run.data.tags["mlflow.runName"] == "training 1 · alpha 1, seed 0"]
    assert (child.info.status, child.data.tags["role"]) == ("FINISHED", "alpha 1")
