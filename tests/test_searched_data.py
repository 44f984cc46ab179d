"""What a search may vary about the data: the weights of datasets and the frame stride, and nothing else."""

import json

import pytest

from smolvla_core.errors import ConfigError
from tests.spec_yaml import loaded, written
from tune.plan import plan_lines
from tune.preflight import preflight
from tune.run_folder import refuse_other_data, write_specification
from tune.space import make_space, shared_values, to_trial_config, warm_starts
from tune.spec import load_spec
from tune.spec_checks import check_data
from tune.tracking.mlflow_entities import dataset_input

TWO = "  data: {train: [{root: /data/eggs}, {root: /data/mousetraps, weight: 0.5}], val_fraction: 0.1}"
WEIGHT = "  data.train.1.weight: {type: float, low: 0.0, high: 1.0}"
STRIDE = "  data.frame_stride: {type: categorical, choices: [1, 2, 3]}"


def lines(*more):
    """Line 10 of the YAML, with more after it."""
    return {10: "\n".join(("  weighting.alpha: {type: float, low: 0.0, high: 2.0}", *more))}


def test_a_weight_is_searched_and_defaults_to_what_is_fixed(tmp_path):
    spec = loaded(tmp_path, {3: TWO} | lines(WEIGHT))
    assert {point["data.train.1.weight"] for point in make_space(spec).cover()} == {0.0, 1.0}
    assert warm_starts(spec)["baseline"]["data.train.1.weight"] == 0.5
    (point, *_) = warm_starts(spec).values()
    for weight, share in ((0.0, 0.0), (1.0, 0.5), (0.25, 0.2)):
        config = to_trial_config(spec, {**point, "data.train.1.weight": weight})
        assert config.data.shares == (pytest.approx(1 - share), pytest.approx(share))
    narrowed = loaded(tmp_path, {3: TWO} | lines(WEIGHT), ("search.data.train.1.weight.high=0.5",))
    assert narrowed.search["data.train.1.weight"].high == 0.5


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({} | lines(WEIGHT), r":11: search\.data\.train\.1\.weight: unknown key"),
        ({3: TWO} | lines("  data.train.1.root: {type: categorical, choices: [a, b]}"), r":11: .*: unknown key"),
        ({3: TWO} | lines(WEIGHT.replace(".1.", ".0.")), r":11: .*data\.train\.0\.weight is 0"),
        ({3: TWO} | lines(WEIGHT.replace("low: 0.0", "low: -1.0")), r":11: .*greater than or equal to 0"),
        (lines("  data.frame_stride: {type: float, low: 1.0, high: 2.5}"), r":11: .*it is a whole number, use int"),
        (lines("  data.frame_stride: {type: int, low: 0, high: 2}"), r":11: .*greater than or equal to 1"),
        (lines("  data.split_seed: {type: int, low: 0, high: 2}"), r":11: search\.data\.split_seed: cannot be sear"),
        (lines("  eval.frame_stride: {type: int, low: 1, high: 2}"), r":11: .*cannot be searched: how trials are sc"),
        ({8: "  eval: {frame_stride: 4}"} | lines(STRIDE), r":11: .*frame_stride is 4, .*no multiple of data\.frame"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_one_line(tmp_path, edits, message):
    with pytest.raises(ConfigError, match=message) as error:
        loaded(tmp_path, edits)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("stride", "scored"),
    [
        (STRIDE, 6),
        ("  data.frame_stride: {type: int, low: 1, high: 4}", 12),
        ("  data.frame_stride: {type: categorical, choices: [1, 3]}", 3),
        ("  optim.eps: {type: categorical, choices: [1.0e-8, 1.0e-6]}", 1),
    ],
)
def test_every_trial_is_scored_at_the_time_stamps_that_all_strides_have(tmp_path, stride, scored):
    spec = loaded(tmp_path, lines(stride))
    assert shared_values(spec)["eval.frame_stride"] == scored
    configs = [to_trial_config(spec, point) for point in (*make_space(spec).cover(), *warm_starts(spec).values())]
    assert {config.eval.frame_stride for config in configs} == {scored}
    if "frame_stride" in stride:
        assert len({config.data.frame_stride for config in configs}) > 1


def test_a_fixed_stride_and_a_grid_of_ones_own(tmp_path):
    fixed = loaded(tmp_path, {3: "  data: {train: [{root: /data/eggs}], frame_stride: 2}"})
    assert shared_values(fixed)["eval.frame_stride"] == 2
    own = loaded(tmp_path, {8: "  eval: {frame_stride: 12}"} | lines(STRIDE))
    assert shared_values(own)["eval.frame_stride"] == 12


def folder(path, fps=30):
    (path / "meta").mkdir(parents=True)
    (path / "meta" / "info.json").write_text(json.dumps({"fps": fps}))
    return path


def test_every_dataset_must_be_there(tmp_path):
    eggs = folder(tmp_path / "eggs")
    edits = {3: f"  data:\n    train:\n      - {{root: {eggs}}}\n      - {{root: {tmp_path}/no}}"}
    spec, source = load_spec(written(tmp_path, edits))
    with pytest.raises(ConfigError) as error:
        check_data(spec)
    assert str(source.located(error.value)).startswith(
        f"{tmp_path}/eggs.yaml:6: trial.data.train.1.root: {tmp_path}/no"
    )


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        # 30 steps of 1/30 s, and 15 of 1/15 s, reach 1 s; the shortest of both searched together decides
        ({14: "    low: 20"} | lines(STRIDE), r"a horizon of 1 s, 30 steps.*chunk_size \(20\); .* at most 0\.667"),
        ({8: "  eval: {horizon_s: 0.1}"} | lines(STRIDE), r"between 6 steps, the first that all frame strides"),
        (
            {3: "  data: {train: [{root: /data/eggs}], frame_stride: 2}", 14: "    low: 10"},
            r"shortest policy\.chunk_size \(10 with data\.frame_stride 2\); set eval\.horizon_s to at most 0\.667",
        ),
    ],
)  # fmt: skip
def test_a_horizon_beyond_the_shortest_reach(tmp_path, edits, message):
    folder(tmp_path / "eggs")
    with pytest.raises(ConfigError, match=message):
        check_data(loaded(tmp_path, edits, (f"data.train.0.root={tmp_path}/eggs",)))


def test_a_short_chunk_of_long_steps_reaches_as_far(tmp_path):
    folder(tmp_path / "eggs")
    chunk = "  policy.chunk_size: {type: categorical, choices: [10], when: {data.frame_stride: 3}}"
    edits = {n: None for n in range(12, 17)} | {25: None} | {n: None for n in range(27, 31)} | {24: None, 26: None}
    edits |= {3: "  data: {train: [{root: /data/eggs}]}", 11: f"{chunk}\n{STRIDE}"}
    check_data(loaded(tmp_path, edits, (f"data.train.0.root={tmp_path}/eggs",)))
    with pytest.raises(ConfigError, match="must lie between"):
        check_data(loaded(tmp_path, edits, (f"data.train.0.root={tmp_path}/eggs", "search.policy.chunk_size.when.data.frame_stride=2")))  # fmt: skip # noqa: E501


def small(tmp_path, cache_dir, *roots):
    entries = "\n".join(f"      - {{root: {root}}}" for root in roots)
    edits = {
        3: f"  data:\n    train:\n{entries}\n    cache_dir: {cache_dir}",
        4: "  policy: {pretrained: tiny, num_steps: 2, chunk_size: 50}",
    }
    return load_spec(written(tmp_path, edits | lines(WEIGHT)))


def test_the_plan_the_tracker_and_a_resumed_study_know_every_dataset(tmp_path, cache_dir, eggs_root, mousetraps_root):
    spec, source = small(tmp_path, cache_dir, eggs_root, mousetraps_root)
    facts = preflight(spec, source)
    text = "\n".join(plan_lines(spec, facts, "runs/eggs"))
    assert str(mousetraps_root) in text
    assert "4 episodes, 2" in text
    assert "all to train" in text
    inputs = [dataset_input(each) for each in (facts.dataset, *facts.dataset["others"])]
    assert [json.loads(each.dataset.source)["uri"] for each in inputs] == [str(eggs_root), str(mousetraps_root)]
    assert len({each.dataset.digest for each in inputs}) == 2
    write_specification(tmp_path / "run", spec, "study: eggs", facts.dataset)
    refuse_other_data(tmp_path / "run", facts.dataset)
    (other,) = facts.dataset["others"]
    with pytest.raises(ConfigError, match=f"{mousetraps_root} has changed since"):
        refuse_other_data(tmp_path / "run", {**facts.dataset, "others": [{**other, "digest": "0"}]})


def test_a_dataset_that_does_not_fit_is_told_with_its_own_line(tmp_path, cache_dir, eggs_root, generic_root):
    with pytest.raises(ConfigError, match=r"eggs\.yaml:6: trial\.data\.train\.1: .* has 10 frames a second, the main"):
        preflight(*small(tmp_path, cache_dir, eggs_root, generic_root))
