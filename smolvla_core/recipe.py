"""The training recipe's parts in one table: ``python -m smolvla_core.recipe > docs/recipe.md``.

Parameters, defaults and ranges are read from ``TrialConfig``; only where a part stands in the code,
and which test shows it, is written here.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from smolvla_core.config import TrialConfig


@dataclass(frozen=True)
class Part:
    """A part of the recipe: its parameters by dotted key or section, its code, and tests of its effect."""

    title: str
    keys: tuple[str, ...]
    code: tuple[str, ...]
    tests: tuple[str, ...]


PARTS: tuple[Part, ...] = (
    Part(
        "Weights of the loss",
        ("weighting.scheme", "weighting.alpha", "weighting.factor", "weighting.normalize"),
        ("weights.py",),
        (
            "test_weights.py::test_hand_checked_weights",
            "test_weights.py::test_annotated_picks_and_places_count_by_the_factor",
            "test_learner.py::test_alpha_changes_every_trained_gradient",
        ),
    ),
    Part(
        "Weights of every step of the chunk",
        ("weighting.per_step",),
        ("weights.py",),
        (
            "test_weights.py::test_each_step_of_the_chunk_has_the_weight_of_its_own_frame",
            "test_weights.py::test_per_step_changes_the_gradient",
        ),
    ),
    Part(
        "Segments of gripper motion",
        ("weighting.segment",),
        ("segments.py",),
        (
            "test_segments.py::test_an_episode_with_one_grasp",
            "test_segments.py::test_two_grasps_are_one_segment_where_the_gap_is_short",
            "test_weights.py::test_schemes_on_the_task",
        ),
    ),
    Part(
        "Curriculum",
        ("curriculum",),
        ("data/sampler.py",),
        (
            "test_sampler.py::test_second_half",
            "test_sampler.py::test_a_histogram_of_the_stages_by_progress",
            "test_sampler.py::test_a_ramp_takes_over_gradually",
        ),
    ),
    Part(
        "Datasets that are trained together",
        ("data.train[].weight", "data.train[].cameras"),
        ("data/mixture.py", "data/companions.py", "trial.py", "learner.py"),
        (
            "test_mixture.py::test_shares_by_histogram",
            "test_mixture.py::test_a_dataset_s_own_order_depends_neither_on_the_others_nor_on_the_shares",
            "test_cotraining.py::test_training_rows_are_normalised_by_their_own_statistics",
            "test_cotraining.py::test_the_gradient_of_a_mixed_batch_is_the_weighted_sum_of_its_parts",
            "test_cotraining.py::test_the_exported_policy_is_the_main_tasks",
        ),
    ),
    Part(
        "Frame stride",
        ("data.frame_stride", "eval.frame_stride"),
        ("data/dataset.py", "objective.py"),
        (
            "test_stride.py::test_a_chunk_takes_every_nth_action_and_the_mean_of_velocities",
            "test_stride.py::test_policies_that_move_alike_score_alike_whatever_their_rate",
            "test_searched_data.py::test_every_trial_is_scored_at_the_time_stamps_that_all_strides_have",
            "test_stride.py::test_the_exported_policy_carries_its_rate",
        ),
    ),
    Part(
        "Sub-sample of frames",
        ("data.frames",),
        ("data/subsample.py", "trial.py"),
        (
            "test_subsample.py::test_a_smaller_one_is_part_of_a_larger_one",
            "test_subsample.py::test_trials_draw_from_it_whatever_their_seed_batch_and_curriculum",
        ),
    ),
    Part(
        "Learning rate",
        ("optim.lr", "optim.lr_scaling", "optim.schedule", "optim.final_lr", "optim.warmup_samples"),
        ("schedule.py",),
        (
            "test_schedule.py::test_cosine_spans_the_full_budget",
            "test_schedule.py::test_linear",
            "test_schedule.py::test_the_last_step_of_the_full_budget_has_the_final_rate",
        ),
    ),
    Part(
        "Batch and length",
        ("optim.batch_size", "optim.micro_batch", "optim.samples", "optim.flow_draws"),
        ("learner.py", "train.py"),
        (
            "test_sampler.py::test_several_draws_of_a_sample_differ_and_begin_with_its_only_one",
            "test_fast.py::test_several_draws_give_the_mean_of_their_errors_in_one_pass",
            "test_train.py::test_the_budget_is_in_samples_whatever_the_batch",
            "test_learner.py::test_accumulation_changes_only_rounding",
        ),
    ),
    Part(
        "Optimizer and moving average",
        ("optim.optimizer", "optim.betas", "optim.eps", "optim.weight_decay", "optim.grad_clip", "optim.ema_decay"),
        ("optimizers.py", "learner.py"),
        (
            "test_config.py::test_defaults_are_the_recipe",
            "test_optimizers.py::test_muon_moves_matrices_of_layers_and_adamw_the_rest",
            "test_learner.py::test_a_moving_average_by_hand",
        ),
    ),
    Part(
        "Jitter of end-effector positions",
        ("augment.gripper_jitter_m",),
        ("augment.py",),
        (
            "test_augment.py::test_it_moves_both_end_effectors_by_metres",
            "test_augment.py::test_training_is_augmented_and_validation_is_not",
        ),
    ),
    Part(
        "Jitter of colours",
        (
            "augment.brightness",
            "augment.contrast",
            "augment.saturation",
            "augment.hue",
            "augment.color_same_draw",
            "augment.color_views",
        ),
        ("augment.py",),
        (
            "test_augment.py::test_changes_of_colour_by_hand",
            "test_augment.py::test_cameras_share_a_draw_or_have_their_own",
            "test_augment.py::test_a_frame_has_a_fixed_number_of_views",
        ),
    ),
    Part(
        "State presets",
        ("state.preset", "state.keys", "state.indices", "state.track"),
        ("r1pro.py", "state.py"),
        (
            "test_state.py::test_a_preset_means_the_same_keys_in_both_releases",
            "test_state_proj.py::test_folding_is_exact_for_every_preset",
        ),
    ),
    Part(
        "Engineered features",
        ("state.features", "data.train[].task_info.basket", "data.train[].task_info.frame"),
        ("features.py",),
        (
            "test_features.py::test_contact_force_is_the_mean_absolute_effort_of_each_gripper",
            "test_features.py::test_a_hand_is_taken_into_the_world_by_the_robots_pose",
            "test_features.py::test_they_reach_the_policy_normalised_and_get_a_gradient",
        ),
    ),
    Part(
        "Pretrained weights and their widening",
        ("policy.pretrained", "policy.max_state_dim"),
        ("policy.py", "state_proj.py"),
        ("test_state_proj.py::test_appended_dims_change_nothing_at_step_0_and_something_after_it",),
    ),
    Part(
        "What is trained",
        ("policy.train_expert_only", "policy.freeze_vision_encoder"),
        ("policy.py",),
        (
            "test_learner.py::test_only_the_expert_and_the_state_projection_are_trained",
            "test_learner.py::test_unfrozen_vision_is_trained",
        ),
    ),
    Part(
        "Chunk and flow",
        ("policy.chunk_size", "policy.n_action_steps", "policy.num_steps"),
        ("policy.py",),
        (
            "test_config.py::test_action_steps_follow_the_chunk_unless_given",
            "test_evaluate.py::test_identical_actions_score_identically_whatever_the_trial",
        ),
    ),
    Part(
        "Relative actions",
        ("policy.relative_actions",),
        ("relative.py",),
        (
            "test_relative.py::test_the_normaliser_knows_the_ways_and_the_score_the_positions",
            "test_relative.py::test_a_policy_gives_positions_and_acts_with_them",
        ),
    ),
    Part(
        "Locating objects",
        ("auxiliary.localization", "data.train[].task_info.objects"),
        ("localization.py",),
        (
            "test_localization.py::test_labels_lie_on_the_eggs_in_the_recorded_pictures",
            "test_localization.py::test_it_adds_its_share_to_the_towers_gradient_and_to_nothing_behind_it",
        ),
    ),
    Part(
        "Instruction",
        ("policy.tokenizer_max_length",),
        ("policy.py",),
        ("test_policy.py::test_the_task_fits_64_tokens_and_not_48",),
    ),
)

HEADER = """# The recipe, part by part

Every parameter of a training run that the recipe speaks of. Each can be fixed under `trial` of a
search's YAML. Every number, choice and text can be searched, but for `optim.samples`, `policy.n_action_steps` (see
`closed_loop.choose`), `policy.max_state_dim`, `eval`, `runtime` and `data`,
which all trials of a study share; of `data` the weights (`data.train.1.weight` is that of the second
dataset) and `data.frame_stride` can be searched. `state.keys` and `state.features` may be written as one
text with commas, so that a search can choose among several lists. Samples count training frames drawn,
times are in seconds, distances in metres.

*Generated by `python -m smolvla_core.recipe > docs/recipe.md`; a test holds this file equal to it.*

| part | parameter | default | range | code | tests of its effect |
|---|---|---|---|---|---|
"""


def leaves(model: type[BaseModel] = TrialConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every parameter of the schema by dotted key; ``name[]`` stands for each item of a list of sections."""
    for name, info in model.model_fields.items():
        section = _section(info.annotation)
        if section is None:
            yield prefix + name, info
        else:
            many = get_origin(info.annotation) is tuple
            yield from leaves(section, f"{prefix}{name}{'[]' if many else ''}.")


def keys_of(part: Part) -> dict[str, FieldInfo]:
    """The parameters of a part.

    Raises:
        KeyError: the schema has nothing of the name.
    """
    known = dict(leaves())
    found: dict[str, FieldInfo] = {}
    for wanted in part.keys:
        matching = {key: info for key, info in known.items() if key == wanted or key.startswith(f"{wanted}.")}
        if not matching:
            raise KeyError(wanted)
        found |= matching
    return found


def default_of(info: FieldInfo) -> str:
    """A parameter's default, as YAML has it."""
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else f"{value:_}" if isinstance(value, int) else str(value)


def range_of(info: FieldInfo) -> str:
    """What a parameter may be, in a few words."""
    if info.examples:
        return ", ".join(map(str, info.examples))
    return _range_of_type(info.annotation, _bounds(info))


def table() -> str:
    """docs/recipe.md."""
    lines = []
    for part in PARTS:
        for position, (key, info) in enumerate(keys_of(part).items()):
            first = position == 0
            code = ", ".join(f"`smolvla_core/{name}`" for name in part.code)
            tests = "<br>".join(f"`{name}`" for name in part.tests)
            cells = (
                part.title if first else "",
                f"`{key}`",
                f"`{default_of(info)}`",
                range_of(info),
                code if first else "",
                tests if first else "",
            )
            lines.append(f"| {' | '.join(cells)} |\n")
    return HEADER + "".join(lines)


def _section(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *(get_args(annotation) if get_origin(annotation) in (tuple, Union, UnionType) else ()))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _bounds(info: FieldInfo) -> Mapping[str, float]:
    return {
        name: getattr(limit, name)
        for limit in info.metadata
        for name in ("ge", "gt", "le", "lt", "multiple_of")
        if getattr(limit, name, None) is not None
    }


def _range_of_type(annotation: Any, bounds: Mapping[str, float]) -> str:
    arguments = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        (kind,) = (a for a in arguments if a is not NoneType)
        return f"{_range_of_type(kind, bounds)}, or null"
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, arguments))
    if get_origin(annotation) is tuple:
        if get_origin(arguments[0]) is Literal:
            return f"any of {', '.join(map(str, get_args(arguments[0])))}"
        return (
            f"a list of {_plural(arguments[0])}"
            if arguments[-1] is Ellipsis
            else f"{len(arguments)} {_plural(arguments[0])}"
        )
    if annotation is bool:
        return "true, false"
    if get_origin(annotation) is dict:
        return "a mapping of names"
    if annotation is str:
        return "a text"
    return _interval(annotation, bounds)


def _plural(kind: Any) -> str:
    return {str: "names", int: "whole numbers", float: "numbers"}[kind]


def _interval(kind: Any, bounds: Mapping[str, float]) -> str:
    number = "whole number" if kind is int else "number"
    if "multiple_of" in bounds:
        number = f"multiple of {bounds['multiple_of']:g}"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    limits = [f"{signs[name]} {bounds[name]:g}" for name in signs if name in bounds]
    return f"{number} {' and '.join(limits)}".rstrip()


if __name__ == "__main__":
    sys.stdout.write(table())
