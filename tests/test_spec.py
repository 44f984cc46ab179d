"""The search's YAML: what it becomes, and one line for every mistake, with its file and line."""

import os
from pathlib import Path

import pytest

from smolvla_core.errors import ConfigError
from tests.spec_yaml import LINES, loaded, written
from tune.spec import SearchSpec, load_spec


def error(folder: Path, edits: dict[int, str | None], assignments: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_spec(written(folder, edits), assignments)
    return str(caught.value)


def test_the_yaml_becomes_a_specification(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = loaded(tmp_path)
    assert spec.samples == 800_000
    assert spec.rungs == (50_000, 150_000, 450_000, 800_000)
    assert list(spec.search) == [
        "weighting.alpha",
        "optim.batch_size",
        "policy.chunk_size",
        "optim.schedule",
        "optim.final_lr",
    ]
    assert spec.warm_start["quick_wins"]["policy.chunk_size"] == 30
    assert spec.experiment == "eggs"
    assert spec.storage == str(tmp_path / "runs")
    assert not spec.is_remote


def test_yaml_round_trip(tmp_path):
    spec = loaded(tmp_path)
    again = tmp_path / "again.yaml"
    again.write_text(spec.to_yaml())
    assert load_spec(again)[0] == spec
    assert SearchSpec.from_dict(spec.to_dict()) == spec


def test_a_rung_at_the_budget_stands_once(tmp_path):
    assert loaded(tmp_path, {6: "    samples: 450_000"}).rungs == (50_000, 150_000, 450_000)
    assert loaded(tmp_path, {35: "  reduction_factor: 2.5"}).rungs == (50_000, 125_000, 312_500, 781_250, 800_000)


def test_the_budget_of_a_trial_has_the_core_s_default(tmp_path):
    assert loaded(tmp_path, {6: None}).samples == 800_000


def test_the_environment_is_read_after_set(tmp_path, monkeypatch):
    edits = {3: '  data: {train: [{root: "${EGGS}/x"}]}'}
    monkeypatch.setenv("EGGS", "/mnt/eggs")
    assert loaded(tmp_path, edits).trial["data"]["train"] == [{"root": "/mnt/eggs/x"}]
    monkeypatch.delenv("EGGS")
    assert loaded(tmp_path, edits, ("data.train.0.root=/other",)).trial["data"]["train"] == [{"root": "/other"}]
    message = error(tmp_path, edits)
    assert message.startswith(
        f"{tmp_path}/eggs.yaml:3: trial.data.train.0.root: ${{EGGS}} is not set; run: export EGGS="
    )


def test_a_number_of_the_environment_is_one_where_its_key_holds_one(tmp_path, monkeypatch):
    numbers = {"NONE": "0", "RATE": "1e-4", "SAMPLES": "90000", "WARMUP": "100"}
    for name, value in {"ROOT": "/7", "ALONE": "true", **numbers}.items():
        monkeypatch.setenv(name, value)
    edits = {
        3: '  data: {train: [{root: "${ROOT}", weight: "${SAMPLES}"}], test_fraction: "${NONE}"}',
        4: '  policy: {chunk_size: 50, pretrained: "${SAMPLES}", train_expert_only: "${ALONE}"}',
        6: '    samples: "${SAMPLES}"\n    warmup_samples: "${WARMUP}"',
        7: '    lr: "${RATE}"',
        34: "  grace_samples: 10_000",
    }
    trial = loaded(tmp_path, edits).trial
    assert trial["data"] == {"train": [{"root": "/7", "weight": 90_000.0}], "test_fraction": 0.0}
    assert trial["policy"] == {"chunk_size": 50, "pretrained": "90000", "train_expert_only": True}
    assert trial["optim"] == {"samples": 90_000, "warmup_samples": 100, "lr": 1e-4}
    assert error(tmp_path, edits | {6: '    samples: "${RATE}"'}).startswith(f"{tmp_path}/eggs.yaml:6: trial.optim.")


def test_relative_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    edits = {
        3: "  data: {train: [{root: data/eggs}], cache_dir: cache}",
        4: "  policy: {pretrained: mine}",
        37: 'tracking: {uri: "sqlite:///runs/mlflow.db"}',
    }
    spec = loaded(tmp_path, edits)
    assert spec.trial["data"] == {"train": [{"root": f"{tmp_path}/data/eggs"}], "cache_dir": f"{tmp_path}/cache"}
    assert spec.trial["policy"]["pretrained"] == f"{tmp_path}/mine"
    assert spec.tracking.uri == f"sqlite:///{tmp_path.resolve()}/runs/mlflow.db"
    home = loaded(tmp_path, {38: "storage: ~/runs"})
    assert home.storage == os.path.expanduser("~/runs")


def test_addresses_and_hub_ids_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    edits = {
        3: "  data: {train: [{repo_id: lerobot/eggs}]}",
        4: "  policy: {pretrained: lerobot/smolvla_base}",
        37: "tracking: {uri: http://mlflow:5000}",
        38: "storage: s3://bucket/runs",
    }
    spec = loaded(tmp_path, edits)
    assert spec.trial["data"] == {"train": [{"repo_id": "lerobot/eggs"}]}
    assert spec.trial["policy"]["pretrained"] == "lerobot/smolvla_base"
    assert spec.storage == "s3://bucket/runs"
    assert spec.is_remote
    assert spec.tracking.uri == "http://mlflow:5000"


@pytest.mark.parametrize(
    ("assignment", "look", "value"),
    [
        ("optim.lr=3e-4", lambda s: s.trial["optim"]["lr"], 3e-4),
        ("trial.optim.lr=3e-4", lambda s: s.trial["optim"]["lr"], 3e-4),
        ("state.preset=all", lambda s: s.trial["state"], {"preset": "all"}),
        ("data.train.0.root=/elsewhere", lambda s: s.trial["data"]["train"][0]["root"], "/elsewhere"),
        ("search.weighting.alpha.high=1.5", lambda s: s.search["weighting.alpha"].high, 1.5),
        ("search.optim.batch_size.choices=[8, 16]", lambda s: s.search["optim.batch_size"].choices, (8, 16)),
        ("search.optim.batch_size.choices.2=64", lambda s: s.search["optim.batch_size"].choices, (8, 16, 64)),
        (
            "search.optim.lr={type: float, low: 1e-5, high: 1e-3, log: true}",
            lambda s: (s.search["optim.lr"].low, list(s.search)[-1]),
            (1e-5, "optim.lr"),
        ),
        ("search.optim.final_lr=null", lambda s: "optim.final_lr" in s.search, False),
        (
            "search.optim.final_lr.when.optim.schedule=[cosine, constant]",
            lambda s: s.search["optim.final_lr"].when,
            {"optim.schedule": ("cosine", "constant")},
        ),
        ("warm_start.quick_wins.weighting.alpha=0.5", lambda s: s.warm_start["quick_wins"]["weighting.alpha"], 0.5),
        (
            "warm_start.quick_wins.weighting.alpha=null",
            lambda s: "weighting.alpha" in s.warm_start["quick_wins"],
            False,
        ),
        ("warm_start.quick_wins=null", lambda s: list(s.warm_start), ["baseline"]),
        ("asha.grace_samples=20_000", lambda s: s.rungs[0], 20_000),
        ("budget.hours=null", lambda s: s.budget.hours, None),
        ("max_concurrent=2", lambda s: s.max_concurrent, 2),
        ("tracking.enabled=false", lambda s: s.tracking.enabled, False),
        ("study=other", lambda s: s.study, "other"),
    ],
)
def test_set(tmp_path, assignment, look, value):
    assert look(loaded(tmp_path, assignments=(assignment,))) == value


def test_set_many_at_once(tmp_path):
    spec = loaded(
        tmp_path,
        assignments=(
            "search.weighting.alpha=null",
            *(f"warm_start.{name}.weighting.alpha=null" for name in ("baseline", "quick_wins")),
        ),
    )
    assert "weighting.alpha" not in spec.search
    assert all("weighting.alpha" not in point for point in spec.warm_start.values())


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("optim.lr", "--set 'optim.lr': expected KEY=VALUE, e.g. --set optim.batch_size=32"),
        ("optim.lr=fast", "--set: trial.optim.lr: got 'fast'"),
        ("optim.lrr=1", "--set: trial.optim.lrr: unknown key; did you mean 'optim.lr'?"),
        ("optm.lr=1", "--set: optm: unknown key"),
        ("bugdet.trials=1", "--set: bugdet: unknown key; did you mean 'budget'?"),
        ("budget.trails=1", "--set: budget.trails: unknown key; did you mean 'trials'?"),
        ("study.name=x", "--set study.name: 'name' lies below a value, not a section; remove '.name'"),
        ("data.train.1.root=/x", "--set data.train.1.root: there is no entry 1; the list holds 1, from 0"),
        ("optim.lr.0=1", "--set optim.lr.0: '0' would be an entry of a list, and there is no list; remove '.0'"),
        ("search.optim.lrr=null", "--set search.optim.lrr: there is nothing to remove; did you mean 'optim.final_lr'?"),
        ("search.optim.lr.low=1e-5", "--set: search.optim.lr: got None; 'type' must be float, int or categorical"),
        ("search.optim.lrr={type: int, low: 1, high: 2}", "--set: search.optim.lrr: unknown key; did you mean"),
        (
            "search.weighting.alpha.low=3",
            "eggs.yaml:10: search.weighting.alpha: low is 3; it must be below high (2) "
            "(with --set search.weighting.alpha.low)",
        ),
        ("warm_start.baseline.optim.lr=1", "--set: warm_start.baseline.optim.lr: is not searched; remove it here"),
        (
            "search.weighting.alpha=null",
            "eggs.yaml:25: warm_start.baseline.weighting.alpha: is not searched; remove it",
        ),
        ("asha.grace_samples=[1", "--set asha.grace_samples:1: not valid YAML"),
        (
            "data.train.0.root=${NO_SUCH_NAME}",
            "--set: trial.data.train.0.root: ${NO_SUCH_NAME} is not set; run: export",
        ),
    ],
)
def test_a_wrong_set_is_said_to_be_one(tmp_path, assignment, line):
    message = error(tmp_path, {}, (assignment,))
    assert line in message
    assert "\n" not in message


# The line that is changed, what is put there, the line that is named, and what is said.
MISTAKES = {
    "typo at the top": (32, "budgte: {trials: 64}", 32, "budgte: unknown key; did you mean 'budget'?"),
    "typo in a section": (32, "budget: {trails: 64}", 32, "budget.trails: unknown key; did you mean 'trials'?"),
    "typo in asha": (34, "  grace_period: 50_000", 34, "asha.grace_period: unknown key; did you mean 'grace_samples'?"),
    "typo in objective": (31, "objective: {metrics: x}", 31, "objective.metrics: unknown key; did you mean 'metric'?"),
    "typo in resources": (36, "resources: {gpu: 1}", 36, "resources.gpu: unknown key; did you mean 'gpus'?"),
    "typo in tracking": (37, "tracking: {url: x}", 37, "tracking.url: unknown key; did you mean 'uri'?"),
    "typo in a parameter": (15, "    hihg: 50", 15, "search.policy.chunk_size.hihg: unknown key; did you mean 'high'?"),
    "typo in the trial": (7, "    lrr: 1.0e-4", 7, "trial.optim.lrr: unknown key; did you mean 'optim.lr'?"),
    "typo of a trial's section": (8, "  evl: {}", 8, "trial.evl: unknown key; did you mean 'eval'?"),
    "typo of a searched key": (
        10,
        "  weighting.alfa: {type: float, low: 0, high: 2}",
        10,
        "did you mean 'weighting.alpha'?",
    ),
    "choices for a number": (
        13,
        "    choices: [1]\n    type: int",
        13,
        "chunk_size.choices: unknown key; valid here: high, log, low",
    ),
    "missing section": (32, None, 1, "required key 'budget' is missing; add it, e.g. budget: {trials: 24}"),
    "missing key": (
        34,
        None,
        33,
        "asha: required key 'grace_samples' is missing; add it, e.g. asha: {grace_samples: 16_000",
    ),
    "missing bound": (
        14,
        None,
        12,
        "search.policy.chunk_size: required key 'low' is missing; add it, e.g. {type: int, low",
    ),
    "missing type": (13, None, 12, "search.policy.chunk_size: got None; 'type' must be float, int or categorical"),
    "missing data": (3, None, 2, "trial: required key 'data' is missing; add it, e.g. trial: {data: {train: [{root:"),
    "wrong type of parameter": (13, "    type: integer", 13, "got 'integer'; 'type' must be float, int or categorical"),
    "text for a number": (
        32,
        "budget: {trials: many}",
        32,
        "budget.trials: got 'many'; input should be a valid integer",
    ),
    "fraction of a trial": (32, "budget: {trials: 1.5}", 32, "budget.trials: got 1.5; input should be a valid integer"),
    "no trials": (32, "budget: {trials: 0}", 32, "budget.trials: got 0; input should be greater than or equal to 1"),
    "no hours": (32, "budget: {trials: 4, hours: 0}", 32, "budget.hours: got 0; input should be greater than 0"),
    "value for a section": (32, "budget: 64", 32, "budget: got 64; it must be a mapping, e.g. budget: {trials: 24}"),
    "empty section": (
        37,
        "tracking:",
        37,
        "tracking: got None; it must be a mapping, e.g. tracking: {experiment: easter_eggs}",
    ),
    "value for a trial's section": (8, "  eval: 3", 8, "trial.eval: got 3; it must be a mapping"),
    "value for a parameter": (
        10,
        "  weighting.alpha: 3",
        10,
        "search.weighting.alpha: got 3; it must be a mapping, e.g. {type: float",
    ),
    "value for a condition": (
        23,
        "    when: cosine",
        23,
        "optim.final_lr.when: got 'cosine'; it must be a mapping, e.g. when:",
    ),
    "value for a warm start": (
        25,
        "  baseline: 3",
        25,
        "warm_start.baseline: got 3; it must be a mapping, e.g. warm_start:",
    ),
    "list in a warm start": (
        27,
        "    weighting.alpha: [1]",
        27,
        "warm_start.quick_wins.weighting.alpha: got [1]; give one number, text",
    ),
    "list among choices": (
        17,
        "  optim.schedule: {type: categorical, choices: [[1], 2]}",
        17,
        "choices.0: got [1]; give one number",
    ),
    "choices no list": (
        17,
        "  optim.schedule: {type: categorical, choices: cosine}",
        17,
        "got 'cosine'; it must be a list, e.g. [a, b]",
    ),
    "no choices": (
        17,
        "  optim.schedule: {type: categorical, choices: []}",
        17,
        "choices: got []; it must hold at least one entry",
    ),
    "a choice twice": (
        11,
        "  optim.batch_size: {type: categorical, choices: [8, 16, 8]}",
        11,
        "each choice must stand once",
    ),
    "1 beside true": (
        11,
        "  policy.train_expert_only: {type: categorical, choices: [true, 1]}",
        11,
        "1, 1.0 and true count as the same",
    ),
    "low above high": (
        10,
        "  weighting.alpha: {type: float, low: 2.0, high: 1.0}",
        10,
        "low is 2; it must be below high (1)",
    ),
    "a key that is idle": (
        10,
        "  weighting.factor: {type: float, low: 1, high: 4}",
        10,
        "search.weighting.factor: acts only where weighting.scheme is segment or annotation, and it is temporal; set "
        "that under 'trial', search it too, or remove this",
    ),
    "a key in an idle section": (
        10,
        "  policy.tiny.layers: {type: int, low: 2, high: 4}",
        10,
        "acts only where policy.pretrained is tiny",
    ),
    "low equals high": (14, "    low: 50", 12, "search.policy.chunk_size: low is 50; it must be below high (50)"),
    "log at zero": (20, "    low: 0", 18, "search.optim.final_lr: low is 0; it must be above 0 where log is true"),
    "log and step": (
        22,
        "    log: true\n    step: 1.0e-7",
        18,
        "search.optim.final_lr: log and step are both given; give one of them",
    ),
    "steps that miss high": (
        15,
        "    high: 55",
        12,
        "high is 55, which is not reached from low (30) in steps of 10; set it to 50",
    ),
    "no number": (
        10,
        "  weighting.alpha: {type: float, low: 0, high: .inf}",
        10,
        "got inf; input should be a finite number",
    ),
    "unknown metric": (
        31,
        "objective: {metric: val/critical_mse}",
        31,
        "got 'val/critical_mse'; no such metric; did you mean",
    ),
    "a maximised error": (
        31,
        "objective: {mode: max}",
        31,
        "objective.mode: got 'max'; every metric is an error, of which less is better; set min",
    ),
    "unknown mode": (
        31,
        "objective: {mode: minimise}",
        31,
        "objective.mode: got 'minimise'; input should be 'min' or 'max'",
    ),
    "fraction of GPUs": (
        36,
        "resources: {gpus: 1.5}",
        36,
        "resources.gpus: got 1.5; above 1 it must be a whole number",
    ),
    "no CPU": (36, "resources: {cpus: 0}", 36, "resources.cpus: got 0; input should be greater than 0"),
    "reduction of one": (
        35,
        "  reduction_factor: 1",
        35,
        "asha.reduction_factor: got 1; input should be greater than or equal to 1.1",
    ),
    "negative seed": (39, "seed: -1", 39, "seed: got -1; input should be greater than or equal to 0"),
    "no folder's name": (
        1,
        "study: my eggs/1",
        1,
        "study: got 'my eggs/1'; it names a folder; begin with a letter or digit",
    ),
    "too long for a folder": (1, f"study: {'e' * 201}", 1, "it names a folder; give at most 200 characters"),
    "number for a name": (1, "study: 2024", 1, "study: got 2024; it must be text; put it in quotes"),
    "a key twice": (39, "seed: 0\nseed: 1", 40, "'seed' stands here and in line 39; remove one of them"),
    "a searched key twice": (
        17,
        "  weighting.alpha: {type: float, low: 0, high: 1}",
        17,
        "stands here and in line 10; remove one",
    ),
    "a number as a name": (
        25,
        "  1: {weighting.alpha: 0.0}",
        25,
        "warm_start.1: YAML reads this key as a number, not as text; put it in quotes",
    ),
    "no YAML": (32, "budget: {trials: 64", 33, "not valid YAML: expected ',' or '}'"),
    "two documents": (39, "seed: 0\n---\nseed: 1", 40, "not valid YAML: but found another document"),
    "a value in itself": (8, "  eval: &again {at: *again}", 8, "holds itself; remove the alias (*)"),
    "dots in the trial": (
        8,
        "  optim.lr: 3.0e-4",
        8,
        "trial.optim.lr: keys are nested here; write optim: {lr: 0.0003}",
    ),
    "sections in the search": (
        10,
        "  weighting: {alpha: {type: float, low: 0, high: 2}}",
        10,
        "is a section; name a key in it with a dot, e.g. weighting.alpha: ...",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(tmp_path, name):
    changed, text, line, fragment = MISTAKES[name]
    message = error(tmp_path, {changed: text})
    assert message.startswith(f"{tmp_path}/eggs.yaml:{line}: ")
    assert fragment in message
    assert "\n" not in message


def test_of_two_mistakes_the_typo_is_named_and_not_what_it_leaves_missing(tmp_path):
    assert "did you mean 'study'?" in error(tmp_path, {1: "stduy: eggs"})


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "eggs.yaml:1: got nothing; it must be a mapping with 'study', 'trial', 'search', 'budget' and 'asha'"),
        (b"- a\n- b\n", "eggs.yaml:1: got list; it must be a mapping"),
        (b"\xff\xfe\x00", "eggs.yaml: is no text file; give the path of a search's YAML"),
        (b"study: !!python/object/apply:os.system ['true']\n", "eggs.yaml:1: not valid YAML"),
        (b"study: a\n\tb: c\n", "eggs.yaml:2: not valid YAML"),
    ],
)
def test_no_search_at_all(tmp_path, content, fragment):
    path = tmp_path / "eggs.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_spec(path)
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"no.yaml: no such file \(looked in .*\); give the path of a search's YAML"):
        load_spec(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_spec(tmp_path)


def test_the_base_has_the_lines_that_are_counted_on():
    assert LINES[24].startswith("  baseline")
    assert len(LINES) == 39
