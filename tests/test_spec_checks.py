"""Whether a search's parts go together: each mistake is one line that names its place and the way out."""

import json

import pytest

from smolvla_core.errors import ConfigError
from tests.spec_yaml import loaded, written
from tune.source import SpecError
from tune.spec import load_spec
from tune.spec_checks import check_data

# The lines that are changed, the line that is named, and what is said.
MISTAKES = {
    "searched data": (
        {10: "  data.val_fraction: {type: float, low: 0.1, high: 0.2}"},
        10,
        "search.data.val_fraction: cannot be searched: which data is trained on and held out is the same for all "
        "trials; set it under 'trial'",
    ),
    "searched scoring": (
        {10: "  eval.draws: {type: int, low: 1, high: 8}"},
        10,
        "search.eval.draws: cannot be searched: how trials are scored is the same for all trials",
    ),
    "searched seed": (
        {10: "  runtime.seed: {type: int, low: 0, high: 8}"},
        10,
        "search.runtime.seed: cannot be searched: where a trial runs is the same for all trials",
    ),
    "searched budget": (
        {10: "  optim.samples: {type: int, low: 1000, high: 8000}"},
        10,
        "search.optim.samples: cannot be searched: it is the budget that trials are compared at; set it under 'trial'",
    ),
    "searched section": (
        {10: "  weighting: {type: float, low: 0, high: 2}"},
        10,
        "search.weighting: unknown key; it is a section, name a key in it, e.g. 'weighting.scheme'",
    ),
    "fractions of a whole number": (
        {11: "  optim.batch_size: {type: float, low: 8, high: 32}"},
        11,
        "search.optim.batch_size.type: got 'float'; it is a whole number, use int",
    ),
    "evaluations by hand": (
        {8: "  eval: {at: [100]}"},
        8,
        "trial.eval.at: is set by the rungs of 'asha'; remove it",
    ),
    "trials scored on test episodes": (
        {8: "  eval: {test: true}"},
        8,
        "trial.eval.test: would score every trial on the test episodes, which are kept for the finalists; remove it",
    ),
    "searched test": (
        {10: "  eval.test: {type: categorical, choices: [true, false]}"},
        10,
        "search.eval.test: cannot be searched: how trials are scored is the same for all trials",
    ),
    "finalists without test episodes": (
        {3: "  data: {train: [{root: /data/eggs}], test_fraction: 0}", 39: "seed: 0\nfinalists: {k: 2}"},
        40,
        "finalists: are scored on test episodes, and data.test_fraction is 0; set it above 0, or remove the finalists",
    ),
    "no finalists": ({39: "finalists: {k: 0}"}, 39, "finalists.k: got 0; input should be greater than or equal to 1"),
    "wrong fixed value": ({7: "    lr: fast"}, 7, "trial.optim.lr: got 'fast'; input should be a valid number"),
    "negative fixed value": ({7: "    lr: -1"}, 7, "trial.optim.lr: got -1; input should be greater than 0"),
    "fixed values at odds": (
        {5: "  optim:\n    schedule: cosine\n    final_lr: 1.0", 17: None, 18: None}
        | {n: None for n in range(19, 24)}
        | {25: None, 26: "  quick_wins:", 30: None},
        7,
        "trial.optim.final_lr: optim.final_lr is 1; it cannot exceed the peak learning rate (0.0001)",
    ),
    "a choice that is none": (
        {17: "  optim.schedule: {type: categorical, choices: [constant, cosine, step]}"},
        17,
        "search.optim.schedule: optim.schedule: got 'step'; input should be 'constant', 'cosine' or 'linear' (with "
        "optim.schedule=step); narrow its values, or give it a 'when'",
    ),
    "a range beyond the rule": (
        {10: "  weighting.alpha: {type: float, low: -1.0, high: 2.0}"},
        10,
        "search.weighting.alpha: weighting.alpha: got -1.0; input should be greater than or equal to 0",
    ),
    "searched actions of a chunk": (
        {10: "  policy.n_action_steps: {type: int, low: 10, high: 30}"},
        10,
        "search.policy.n_action_steps: cannot be searched: only acting sees what it does; list values in "
        "closed_loop.choose.n_action_steps, or set it under 'trial'",
    ),
    "searched zeros": (
        {10: "  policy.max_state_dim: {type: categorical, choices: [32, 64]}"},
        10,
        "search.policy.max_state_dim: cannot be searched: columns beyond the state's are fed zeros",
    ),
    "weights of 1 in another place": (
        {8: "  weighting: {scheme: uniform}", 10: "  weighting.per_step: {type: categorical, choices: [true, false]}"},
        10,
        "search.weighting.per_step: acts only where weighting.scheme is temporal or segment or annotation, and it is "
        "uniform",
    ),
    "units that differ": (
        {
            10: "  policy.relative_actions: {type: categorical, choices: [false, true]}",
            31: "objective: {metric: val/flow_loss, mode: min}",
            25: "  baseline: {optim.batch_size: 8, policy.chunk_size: 50, optim.schedule: constant}",
            27: None,
        },
        30,
        "objective.metric: val/flow_loss cannot be compared where policy.relative_actions is true",
    ),
    "a corner at odds": (
        {16: "    step: 10\n  optim.micro_batch: {type: int, low: 4, high: 32}", 24: None}
        | {n: None for n in range(25, 31)},
        17,
        "search.optim.micro_batch: optim.micro_batch is 32; it cannot exceed optim.batch_size (8) (with "
        "optim.micro_batch=32, optim.batch_size=8); narrow its values, or give it a 'when'",
    ),
    "a final rate above the peak": (
        {21: "    high: 1.0e-3"},
        18,
        "search.optim.final_lr: optim.final_lr is 0.001; it cannot exceed the peak learning rate (0.0001)",
    ),
    "a condition on no key": (
        {23: "    when: {optim.shedule: cosine}"},
        23,
        "search.optim.final_lr.when.optim.shedule: unknown key; did you mean 'optim.schedule'?",
    ),
    "a condition that is never tried": (
        {23: "    when: {optim.schedule: linear}"},
        23,
        "when.optim.schedule: got 'linear', which is never tried: it is searched over one of constant, cosine",
    ),
    "a condition on a fixed value": (
        {23: "    when: {optim.schedule: cosine, optim.lr_scaling: sqrt}"},
        23,
        "when.optim.lr_scaling: never holds: optim.lr_scaling is 'none'; set it under 'trial', search it too, or "
        "remove 'optim.final_lr' from 'search'",
    ),
    "1 for true": (
        {23: "    when: {optim.schedule: cosine, policy.train_expert_only: 1}"},
        23,
        "when.policy.train_expert_only: never holds: policy.train_expert_only is True",
    ),
    "no value in a condition": (
        {23: "    when: {optim.schedule: []}"},
        23,
        "search.optim.final_lr.when: never holds: its conditions exclude each other; change one of them",
    ),
    "conditions that exclude each other": (
        {
            23: "    when: {optim.schedule: cosine}\n  optim.warmup_samples:\n    type: int\n    low: 0\n    high: 9\n"
            "    when: {optim.schedule: constant, optim.final_lr: 1.0e-5}"
        },
        28,
        "search.optim.warmup_samples.when: never holds: its conditions exclude each other; change one of them",
    ),
    "conditions in a circle": (
        {
            10: "  weighting.alpha: {type: float, low: 0.0, high: 2.0, when: {policy.chunk_size: 30}}",
            16: "    step: 10\n    when: {optim.batch_size: 8}",
            11: "  optim.batch_size: {type: categorical, choices: [8, 16, 32], when: {weighting.alpha: 0.0}}",
        },
        10,
        "search.weighting.alpha.when: the conditions run in a circle; remove one of them",
    ),
    "a condition on itself": (
        {23: "    when: {optim.final_lr: 1.0e-5}"},
        23,
        "search.optim.final_lr.when: the conditions run in a circle; remove one of them",
    ),
    "a warm start on no searched key": (
        {27: "    optim.lr: 1.0e-4"},
        27,
        "warm_start.quick_wins.optim.lr: is not searched; remove it here, or add it to 'search'",
    ),
    "a typo in a warm start": (
        {27: "    weighting.alpah: 1.0"},
        27,
        "warm_start.quick_wins.weighting.alpah: is not searched; did you mean 'weighting.alpha'?; remove it here",
    ),
    "a warm start above the range": (
        {27: "    weighting.alpha: 2.5"},
        27,
        "warm_start.quick_wins.weighting.alpha: got 2.5; it must be within 0 to 2",
    ),
    "a warm start between the steps": (
        {29: "    policy.chunk_size: 35"},
        29,
        "warm_start.quick_wins.policy.chunk_size: got 35; it must be within 30 to 50, step 10",
    ),
    "a warm start that is no choice": (
        {28: "    optim.batch_size: 12"},
        28,
        "warm_start.quick_wins.optim.batch_size: got 12; it must be one of 8, 16, 32",
    ),
    "text in a warm start": (
        {27: "    weighting.alpha: high"},
        27,
        "warm_start.quick_wins.weighting.alpha: got 'high'; it must be within 0 to 2",
    ),
    "a warm start with an inactive key": (
        {30: "    optim.schedule: constant\n    optim.final_lr: 1.0e-6"},
        31,
        "warm_start.quick_wins.optim.final_lr: acts only where optim.schedule is cosine; remove it from this point",
    ),
    "a warm start with a default that is not searched": (
        {14: "    low: 20", 15: "    high: 40", 25: None, 29: None, 4: None},
        24,
        "warm_start.quick_wins: does not give 'policy.chunk_size', whose fixed or default value 50 is not among the "
        "searched (20 to 40, step 10); add it",
    ),
    "a warm start twice": (
        {27: "    weighting.alpha: 0.0", 28: "    optim.batch_size: 8", 29: "    policy.chunk_size: 50"},
        26,
        "warm_start.quick_wins: is the same point as 'baseline'; remove one of them",
    ),
    "fewer trials than warm starts": (
        {32: "budget: {trials: 1}"},
        32,
        "budget.trials: got 1; it must be at least the number of warm starts (2), which count as trials",
    ),
    "grace beyond the budget": (
        {34: "  grace_samples: 800_000"},
        34,
        "asha.grace_samples: got 800000; it must be below optim.samples (800000), a trial's budget; try 88888",
    ),
    "rungs closer than a batch": (
        {6: "    samples: 160", 34: "  grace_samples: 50"},
        34,
        "asha.grace_samples: rungs 150 and 160 lie closer than the largest batch (32), so that a trial would skip one; "
        "change grace_samples or reduction_factor",
    ),
    "a first rung below a batch": (
        {6: "    samples: 270", 34: "  grace_samples: 10"},
        34,
        "asha.grace_samples: the first rung, 10, lies below the largest batch (32), which would be compared at more "
        "samples than the others; raise grace_samples",
    ),
    "remote storage and the default tracking": (
        {38: "storage: s3://bucket/runs"},
        38,
        "storage: storage is remote (s3://bucket/runs), where MLflow's SQLite file cannot live; set tracking.uri to a "
        "server or database that every machine reaches, e.g. http://mlflow:5000",
    ),
    "remote storage and SQLite": (
        {37: 'tracking: {uri: "sqlite:////var/mlflow.db"}', 38: "storage: s3://bucket/runs"},
        37,
        "tracking.uri: storage is remote (s3://bucket/runs), where MLflow's sqlite:////var/mlflow.db cannot live",
    ),
    "a tracking store that MLflow does not know": (
        {37: "tracking: {uri: mongodb://host/mlflow}"},
        37,
        "tracking.uri: MLflow knows no address that begins with 'mongodb://'; give e.g. sqlite:///runs/mlflow.db",
    ),
    "a storage that goes with a job": (
        {38: "storage: /tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/runs"},
        38,
        "runs lies in the working directory of a Ray job, which is deleted with the job; give an address (s3://bucket/",
    ),
    "a database that goes with a job": (
        {37: 'tracking: {uri: "sqlite:////tmp/ray/s/runtime_resources/working_dir_files/_ray_pkg_1/mlflow.db"}'},
        37,
        "mlflow.db lies in the working directory of a Ray job",
    ),
    "remote storage and a folder": (
        {37: "tracking: {uri: mlruns}", 38: "storage: gs://bucket/runs"},
        37,
        "tracking.uri: storage is remote (gs://bucket/runs), where MLflow's",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(tmp_path, name):
    edits, line, fragment = MISTAKES[name]
    with pytest.raises(ConfigError) as caught:
        load_spec(written(tmp_path, edits))
    assert str(caught.value).startswith(f"{tmp_path}/eggs.yaml:{line}: ")
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "edits",
    [
        {38: "storage: s3://bucket/runs", 37: "tracking: {uri: http://mlflow:5000}"},
        {38: "storage: s3://bucket/runs", 37: "tracking: {enabled: false}"},
        {38: "storage: s3://bucket/runs", 37: "tracking: {uri: postgresql://user@host/mlflow}"},
        {37: "tracking: {uri: mysql+pymysql://user@host/mlflow}"},
        {23: "    when: {optim.schedule: [cosine], policy.train_expert_only: true}"},
        {23: "    when: {optim.schedule: cosine, policy.chunk_size: 40}"},
        {6: "    samples: 800", 34: "  grace_samples: 32"},
        {16: "    step: 10\n  optim.micro_batch: {type: int, low: 1, high: 8}", 24: None}
        | {n: None for n in range(25, 31)},
        {11: "  optim.batch_size: {type: float, low: 8, high: 32, step: 8}"},
        {10: "  optim.micro_batch: {type: categorical, choices: [null, 4]}", 25: None, 27: None},
    ],
)
def test_what_goes_together_is_taken(tmp_path, edits):
    loaded(tmp_path, edits)


def test_a_point_that_cannot_train_names_the_warm_start_s_own_line(tmp_path):
    edits = {
        4: "  policy: {chunk_size: 50, n_action_steps: 40}",
        14: "    low: 40",
        29: "    policy.chunk_size: 40",
        16: "    step: 10\n  optim.micro_batch: {type: categorical, choices: [null, 16]}",
        25: "  baseline: {weighting.alpha: 0.0, optim.batch_size: 8, policy.chunk_size: 50,\n"
        "    optim.micro_batch: 16, optim.schedule: constant}",
    }
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, edits)
    assert "eggs.yaml:27: warm_start.baseline.optim.micro_batch: optim.micro_batch is 16; it cannot exceed " in str(
        caught.value
    )
    assert "(with optim.micro_batch=16, optim.batch_size=8)" in str(caught.value)


def test_a_searched_folder_must_be_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    choices = "  policy.pretrained: {{type: categorical, choices: [lerobot/smolvla_base, {}]}}"
    with pytest.raises(
        ConfigError, match=r"eggs.yaml:10: search.policy.pretrained: mine is a folder, .* absolute path"
    ):
        loaded(tmp_path, {10: choices.format("mine"), 25: None, 27: None})
    loaded(tmp_path, {10: choices.format(tmp_path / "mine"), 25: None, 27: None})


def dataset(folder, fps=30):
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps({"fps": fps}))
    return f"data.train.0.root={folder}"


def test_the_dataset_is_there_and_its_facts_come_back(tmp_path):
    spec = loaded(tmp_path, assignments=(dataset(tmp_path / "eggs"),))
    assert check_data(spec) == {"fps": 30}
    assert check_data(loaded(tmp_path, {3: "  data: {train: [{repo_id: lerobot/eggs}]}"})) == {}


def data_error(folder, edits, assignments=()):
    spec, source = load_spec(written(folder, edits), assignments)
    with pytest.raises(SpecError) as caught:
        check_data(spec)
    assert "\n" not in str(caught.value)
    return str(source.located(caught.value))


def test_no_dataset(tmp_path):
    missing = data_error(tmp_path, {3: f"  data: {{train: [{{root: {tmp_path}/no}}]}}"})
    assert missing == (
        f"{tmp_path}/eggs.yaml:3: trial.data.train.0.root: {tmp_path}/no: no such folder; "
        "give the folder of a LeRobot dataset"
    )
    assert "has no readable meta/info.json; give the folder" in data_error(
        tmp_path, {}, (f"data.train.0.root={tmp_path}",)
    )
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"fps": ')
    assert "--set: trial.data.train.0.root: " in data_error(tmp_path, {}, (f"data.train.0.root={tmp_path}",))


@pytest.mark.parametrize(
    ("edits", "line"),
    [
        ({8: "  eval: {horizon_s: 1.2}"}, 8),
        ({8: "  eval: {frames: 8}"}, 12),  # the default of 1 s, with the shortest searched chunk of 20 below
        ({8: None, 4: "  policy:\n    chunk_size: 20", 29: None, 25: None}, 5),
    ],
)
def test_a_horizon_longer_than_the_shortest_chunk(tmp_path, edits, line):
    root = dataset(tmp_path / "eggs")
    if line == 12:
        edits = edits | {14: "    low: 20"}
    if line == 5:
        edits = edits | {n: None for n in range(12, 17)}
    message = data_error(tmp_path, edits, (root,))
    shortest, seconds = (30, "1.2 s, 36") if line == 8 else (20, "1 s, 30")
    assert message.startswith(f"{tmp_path}/eggs.yaml:{line}: ")
    assert (
        f"a horizon of {seconds} steps at 30 Hz; it must lie between 1 step and the shortest policy.chunk_size "
        f"({shortest}); set eval.horizon_s to at most {shortest / 30:.3g}" in message
    )


def test_a_horizon_of_the_shortest_chunk_is_taken(tmp_path):
    root = dataset(tmp_path / "eggs")
    check_data(loaded(tmp_path, {8: "  eval: {horizon_s: 1.0}"}, (root,)))
    assert "between 1 step" in data_error(tmp_path, {8: "  eval: {horizon_s: 0.01}"}, (root,))
