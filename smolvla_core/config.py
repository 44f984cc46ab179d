"""``TrialConfig``: everything that defines one training run, and the only place a default stands.

Lengths of training are in *samples* (training frames drawn), never in steps or epochs, so that
trials with different batch sizes can be compared. Times are in seconds, distances in metres.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from smolvla_core.errors import ConfigError
from smolvla_core.r1pro import PRESETS

TINY = "tiny"
REFERENCE_BATCH = 8  # the batch size at which `optim.lr` is stated; `lr_scaling` is relative to it


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class TaskInfoConfig(Section):
    """Where object poses stand in a dataset's ``observation.task_info``, which has no names of its own.

    BEHAVIOR's ``meta/episodes/*.json`` lists the order as ``task_obs_keys``: an object has 1 dim
    ``real``, then 3 dims ``pos``, in the world.
    """

    basket: tuple[int, int]
    """First dim of the basket's position, and the one past its last: x and y, or x, y and z."""
    frame: Literal["world", "robot"] = "world"
    """``world``: the robot's own pose is taken from the raw state. ``robot``: as end effectors are."""

    @field_validator("basket")
    @classmethod
    def _two_or_three_dims(cls, basket: tuple[int, int]) -> tuple[int, int]:
        if basket[0] < 0 or basket[1] - basket[0] not in (2, 3):
            raise ValueError("must be [first, past the last] of 2 or 3 dims, e.g. [13, 16]")
        return basket


class DatasetSource(Section):
    """One LeRobot dataset, on disk (``root``) or on the hub (``repo_id``)."""

    root: str | None = None
    repo_id: str | None = None
    weight: float = Field(default=1.0, ge=0)
    """Its share of the samples is its weight over the sum of all weights. 0: never drawn."""
    cameras: dict[str, str] | None = None
    """In place of ``data.cameras``, where this dataset names its cameras differently."""
    task_info: TaskInfoConfig | None = None
    """Where object poses stand; needed by features that use them, else not read."""
    task: int | None = Field(default=None, ge=0)
    """Number of the one task to use of a dataset of several, as in ``meta/tasks.parquet``; the files of the
    others need not be there. None: all of its tasks."""

    @model_validator(mode="after")
    def _located(self) -> Self:
        if self.root is None and self.repo_id is None:
            raise ValueError("needs 'root' (a folder) or 'repo_id' (a hub id)")
        return self


class DataConfig(Section):
    """Which frames are trained on, and which are held out. Splits are by episode."""

    train: tuple[DatasetSource, ...] = Field(min_length=1)
    """The first is the main task: what is held out, scored and exported is its own. Others are
    trained beside it, each normalised by its own statistics."""
    frame_stride: int = Field(default=1, ge=1)
    """Recorded frames from an action of a chunk to the next: 3 trains a policy of 10 Hz on 30 Hz data."""
    cameras: dict[str, str] = Field(default_factory=dict)
    """Policy camera name -> dataset key. Empty: the dataset's cameras in the policy's order."""
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    test_fraction: float = Field(default=0.1, ge=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    frames: int | None = Field(default=None, ge=1)
    """Train on a fixed, seeded sub-sample of so many frames, each still with its whole chunk of actions;
    of all datasets together, in proportion to their sizes. None: on all; a search then takes as many as
    its cache has room for. What is held out is never thinned."""
    gripper_dims: tuple[int, ...] = ()
    """Raw state dims of the grippers or hands, for datasets whose layout is not known by name."""
    cache_dir: str | None = None
    """Where converted v2.1 datasets go. Default: ``~/.cache/smolvla_core``."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.train[0].weight == 0:
            raise ValueError(
                "data.train.0.weight is 0, so that the main task, which is scored and exported, would never be trained "
                "on; set it above 0, or list the main task first"
            )
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"data.val_fraction + data.test_fraction is {self.val_fraction + self.test_fraction:g}; "
                "it must stay below 1 to leave training episodes"
            )
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each dataset in the samples; they sum to 1."""
        total = sum(source.weight for source in self.train)
        return tuple(source.weight / total for source in self.train)


class StateConfig(Section):
    """Which dims of the raw proprioception the policy sees; see ``smolvla_core.state``.

    Lists may be written as one text with commas, so that a search can choose among several.
    """

    preset: str | None = Field(default="top32", examples=list(PRESETS))
    """A name in ``smolvla_core.r1pro.PRESETS``. None: ``keys`` or ``indices`` are given instead."""
    keys: tuple[str, ...] = ()
    """Explicit key names in place of a preset, e.g. ``[base_qvel, trunk_qpos]``."""
    indices: tuple[int, ...] = ()
    """Explicit raw dims in place of a preset."""
    features: tuple[Literal["contact_force", "basket_distance"], ...] = ()
    """Engineered numbers appended to the state; see ``smolvla_core.features``."""
    track: Literal["standard", "open"] = "standard"
    """``standard`` refuses what the challenge's standard track forbids."""

    @model_validator(mode="before")
    @classmethod
    def _no_preset_beside_a_list(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "preset" not in values and (values.get("keys") or values.get("indices")):
            return {**values, "preset": None}
        return values

    @field_validator("keys", "features", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return () if value == "none" else tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"no such preset{suggest(preset, PRESETS)}")
        return preset

    @field_validator("features")
    @classmethod
    def _each_once(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(features)) < len(features):
            raise ValueError("a feature is listed twice; list each once")
        return features

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [f"state.{name}" for name in ("preset", "keys", "indices") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both given; give one of them")
        if not given:
            raise ValueError("state.preset is None; give a preset, state.keys or state.indices")
        if self.track == "standard" and "basket_distance" in self.features:
            raise ValueError(
                "state.features: basket_distance is made of object poses (observation.task_info), which the standard "
                "track forbids; remove it, or set state.track to open"
            )
        return self


class SegmentConfig(Section):
    """What counts as a segment of gripper motion; see ``smolvla_core.segments``."""

    threshold_m: float = Field(default=0.02, gt=0)
    """Least change of a gripper's opening (the sum of its joints) that counts as motion."""
    window_s: float = Field(default=0.5, gt=0)
    """The time within which it must change that much."""
    merge_s: float = Field(default=0.5, ge=0)
    """Gaps up to this long between two segments are filled."""
    dilate_s: float = Field(default=0.25, ge=0)
    """Each segment is longer by this much at both ends."""


class WeightingConfig(Section):
    """Per-sample loss weights; see ``smolvla_core.weights``."""

    scheme: Literal["uniform", "temporal", "segment", "annotation"] = "temporal"
    alpha: float = Field(default=0.0, ge=0)
    """Temporal: weight = 1 + alpha * progress**2. 0 is exactly the unweighted loss."""
    factor: float = Field(default=3.0, gt=0)
    """Segment and annotation: weight of the frames inside; 1 outside."""
    segment: SegmentConfig = SegmentConfig()
    per_step: bool = False
    """Weight every future action of the chunk by its own frame, not all by the chunk's first."""
    normalize: bool = False
    """Divide by the sum of the batch's weights in place of the batch size."""


class CurriculumConfig(Section):
    """Which part of the episodes is drawn when; see ``smolvla_core.data.sampler``."""

    scheme: Literal["none", "second_half"] = "none"
    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the sample budget drawn from full episodes before the late stage begins."""
    start: float = Field(default=0.5, gt=0, lt=1)
    """The late stage draws only frames with progress >= start."""
    ramp: float = Field(default=0.0, ge=0, lt=1)
    """Share of the budget over which the late stage takes over gradually. 0: at once."""

    @model_validator(mode="after")
    def _ends_within_the_budget(self) -> Self:
        if self.scheme != "none" and self.share + self.ramp > 1:
            raise ValueError(
                f"curriculum.share + curriculum.ramp is {self.share + self.ramp:g}; "
                "it cannot exceed 1, the whole budget"
            )
        return self


class AugmentConfig(Section):
    """Changes to training frames, never to validation; see ``smolvla_core.augment``."""

    gripper_jitter_m: float = Field(default=0.0, ge=0)
    """Half-width of the uniform jitter on end-effector positions in the raw state, in metres. 0 is off."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Half-width of the uniform jitter of a picture's brightness factor around 1. 0 is off."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """As ``brightness``, for contrast."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """As ``brightness``, for saturation."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Half-width of the uniform shift of hue, in turns of the colour wheel. 0 is off."""
    color_same_draw: bool = True
    """Whether the cameras of a frame share a draw; else each has its own."""
    color_views: int | None = Field(default=None, ge=1)
    """Number of fixed jittered views of a frame, of which each sample draws one: their features can be
    stored. None: a fresh draw each sample."""

    @property
    def color_amounts(self) -> tuple[float, float, float, float]:
        """Brightness, contrast, saturation and hue."""
        return (self.brightness, self.contrast, self.saturation, self.hue)

    @model_validator(mode="after")
    def _acts(self) -> Self:
        if any(self.color_amounts):
            return self
        idle = "set augment.brightness, contrast, saturation or hue above 0, or leave it out"
        if self.color_views is not None:
            raise ValueError(f"augment.color_views is {self.color_views}, but no colour is jittered; {idle}")
        if not self.color_same_draw:
            raise ValueError(f"augment.color_same_draw is false, but no colour is jittered; {idle}")
        return self


class TinyConfig(Section):
    """Size of the policy that ``policy.pretrained: tiny`` builds from random weights."""

    image_size: int = Field(default=64, ge=32, multiple_of=32)
    hidden_size: int = Field(default=64, ge=16, multiple_of=16)
    layers: int = Field(default=4, ge=2, multiple_of=2)
    vision_hidden_size: int = Field(default=32, ge=16, multiple_of=16)
    vision_layers: int = Field(default=2, ge=1)
    expert_width: float = Field(default=0.75, gt=0, le=1)
    init_seed: int = Field(default=0, ge=0)


class PolicyConfig(Section):
    """The SmolVLA policy; see ``smolvla_core.policy``."""

    pretrained: str = "lerobot/smolvla_base"
    """A hub id, a folder, or ``tiny``."""
    chunk_size: int = Field(default=50, ge=1)
    n_action_steps: int | None = Field(default=None, ge=1)
    """Steps executed before the policy is asked again. None: all of the chunk."""
    num_steps: int = Field(default=10, ge=1)
    """Euler steps of the flow integration."""
    tokenizer_max_length: int = Field(default=64, ge=1)
    max_state_dim: int | None = Field(default=None, ge=8, multiple_of=8)
    """Columns of ``state_proj``; those that the checkpoint lacks are added as zeros. None: as many as
    the state needs, at least the checkpoint's, a multiple of 8."""
    train_expert_only: bool = True
    freeze_vision_encoder: bool = True
    tiny: TinyConfig = TinyConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n_action_steps is not None and self.n_action_steps > self.chunk_size:
            raise ValueError(
                f"policy.n_action_steps is {self.n_action_steps}; "
                f"it cannot exceed policy.chunk_size ({self.chunk_size})"
            )
        if self.train_expert_only and not self.freeze_vision_encoder:
            raise ValueError(
                "policy.freeze_vision_encoder is false while policy.train_expert_only is true, which freezes "
                "the vision encoder too; set policy.train_expert_only to false"
            )
        return self

    @property
    def action_steps(self) -> int:
        """``n_action_steps``, following ``chunk_size`` unless it was given."""
        return self.chunk_size if self.n_action_steps is None else self.n_action_steps


class OptimConfig(Section):
    """Optimizer, schedule and length. The defaults are lerobot's SmolVLA preset at batch 8."""

    batch_size: int = Field(default=8, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples a forward pass; gradients are accumulated up to the batch. None: the batch."""
    samples: int = Field(default=800_000, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    lr_scaling: Literal["none", "sqrt"] = "none"
    """lr at batch B = lr * (B / 8) ** (0 or 1/2)."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    final_lr: float = Field(default=1e-6, ge=0)
    warmup_samples: int = Field(default=0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=1e-10, ge=0)
    grad_clip: float = Field(default=10.0, gt=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the trained weights, used for evaluation and
    export. None: off."""

    @field_validator("betas")
    @classmethod
    def _betas_in_range(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("each must be in [0, 1)")
        return betas

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.micro_batch is not None and self.micro_batch > self.batch_size:
            raise ValueError(
                f"optim.micro_batch is {self.micro_batch}; it cannot exceed optim.batch_size ({self.batch_size})"
            )
        if self.batch_size > self.samples:
            raise ValueError(f"optim.batch_size is {self.batch_size}; it cannot exceed optim.samples ({self.samples})")
        if self.warmup_samples >= self.samples:
            raise ValueError(
                f"optim.warmup_samples is {self.warmup_samples}; it must be below optim.samples ({self.samples})"
            )
        if self.schedule != "constant" and self.final_lr > self.peak_lr:
            raise ValueError(
                f"optim.final_lr is {self.final_lr:g}; it cannot exceed the peak learning rate ({self.peak_lr:g})"
            )
        return self

    @property
    def peak_lr(self) -> float:
        """The learning rate after ``lr_scaling``."""
        exponent = {"none": 0.0, "sqrt": 0.5}[self.lr_scaling]
        return self.lr * (self.batch_size / REFERENCE_BATCH) ** exponent

    @property
    def steps(self) -> int:
        """Optimizer steps: the first count whose samples reach ``samples``."""
        return -(-self.samples // self.batch_size)


class EvalConfig(Section):
    """The objective; see ``smolvla_core.evaluate``. Shared by all trials of a study."""

    horizon_s: float = Field(default=1.0, gt=0)
    frames: int = Field(default=512, ge=1)
    draws: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=32, ge=1)
    critical: Literal["auto", "annotation", "gripper", "progress"] = "auto"
    """Which frames are critical. ``auto``: the first rule that the data allows."""
    gripper_window_s: float = Field(default=0.5, gt=0)
    gripper_threshold: float = Field(default=0.1, gt=0, lt=1)
    """Gripper motion counts above this share of the gripper's range within the window."""
    critical_progress: float = Field(default=0.6, ge=0, lt=1)
    frame_stride: int | None = Field(default=None, ge=1)
    """Recorded frames from a scored time stamp to the next: a multiple of every ``data.frame_stride``
    of the study. A search sets it; None: ``data.frame_stride``."""
    at: tuple[int, ...] = ()
    """Sample counts at which to evaluate and report, besides the end of training."""
    test: bool = False
    """Score the test episodes too, once, when training ends. A search does so for its finalists alone."""

    @field_validator("at")
    @classmethod
    def _ascending(cls, at: tuple[int, ...]) -> tuple[int, ...]:
        if any(samples < 1 for samples in at) or list(at) != sorted(set(at)):
            raise ValueError("must be positive and strictly ascending")
        return at


class RuntimeConfig(Section):
    """Where and how it runs. Nothing here changes what is learned, but for ``seed``."""

    seed: int = Field(default=0, ge=0)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``. ``auto``: cuda where there is one, else cpu."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 autocast on a GPU that has it, fp32 elsewhere."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch. None: torch's own choice."""
    fast_forward: bool = True
    """The exact fast forward while the VLM is frozen. False: always lerobot's own, to compare."""
    cache: str = Field(default="auto", examples=["auto", "off", "a folder"])
    """Where what is computed once per frame is kept: a folder, ``auto`` for ``features`` in
    ``data.cache_dir``, or ``off``. The numbers are the same; see ``smolvla_core.cache``."""
    cache_gb: float = Field(default=50.0, gt=0)
    """The most that all of that folder may take on the disk, in GB (10**9 bytes)."""
    prefix_gb: float = Field(default=1.0, ge=0)
    """Memory of a trial, in GB, for what the frozen VLM makes of the frames that every evaluation scores."""
    log_every_samples: int = Field(default=1000, ge=1)
    """How often training metrics are reported between evaluations."""

    @field_validator("cache", mode="before")
    @classmethod
    def _off_is_a_word(cls, cache: Any) -> Any:
        # YAML reads a bare `off` as false
        return {False: "off", True: "auto"}[cache] if isinstance(cache, bool) else cache


class TrialConfig(Section):
    """One training run, complete. Build it with :meth:`from_dict` to get readable errors."""

    data: DataConfig
    state: StateConfig = StateConfig()
    weighting: WeightingConfig = WeightingConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    augment: AugmentConfig = AugmentConfig()
    policy: PolicyConfig = PolicyConfig()
    optim: OptimConfig = OptimConfig()
    eval: EvalConfig = EvalConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _strides_meet(self) -> Self:
        if self.scored_stride % self.data.frame_stride:
            raise ValueError(
                f"eval.frame_stride is {self.scored_stride}, which is no multiple of data.frame_stride "
                f"({self.data.frame_stride}), so that the scored time stamps would fall between the policy's; "
                "remove it, or set it to a multiple"
            )
        return self

    @property
    def scored_stride(self) -> int:
        """Recorded frames from a scored time stamp to the next."""
        return self.eval.frame_stride or self.data.frame_stride

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Validate a nested mapping.

        Raises:
            ConfigError: one line that names the first wrong key, its value and the rule, with
                the nearest valid key where a key is unknown.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain(error, cls)) from None

    def with_values(self, dotted: Mapping[str, Any]) -> Self:
        """A copy with ``{"optim.batch_size": 16}`` applied.

        Raises:
            ConfigError: as :meth:`from_dict`.
        """
        return type(self).from_dict(set_dotted(self.to_dict(), dotted))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values that survive JSON and YAML; the inverse of :meth:`from_dict`."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The configuration as YAML, ready for ``python -m smolvla_core.train``."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def dotted_keys(model: type[BaseModel] = TrialConfig, prefix: str = "") -> dict[str, Any]:
    """Every leaf of the schema, ``{"optim.lr": FieldInfo, ...}``."""
    leaves: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            leaves |= dotted_keys(field.annotation, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = field
    return leaves


def weight_keys(count: int) -> dict[str, Any]:
    """The weights of ``count`` datasets as dotted keys, ``{"data.train.0.weight": FieldInfo, ...}``."""
    return {f"data.train.{number}.weight": DatasetSource.model_fields["weight"] for number in range(count)}


def set_dotted(nested: Mapping[str, Any], dotted: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``nested`` with each ``a.b.c`` of ``dotted`` set; missing sections are made.

    An entry of a list is named by its number, from 0: ``data.train.1.weight``.

    Raises:
        ConfigError: a path runs through something that is no section, or past a list's end.
    """
    result: Any = dict(nested)
    for path, value in dotted.items():
        result = _set_at(result, path.split("."), 0, value)
    return dict(result)


def _set_at(node: Any, parts: Sequence[str], depth: int, value: Any) -> Any:
    """A copy of what stands at ``parts[:depth]``, with the value set below it."""
    if depth == len(parts):
        return value
    path, part = ".".join(parts), parts[depth]
    if isinstance(node, list | tuple):
        if not part.isdecimal() or int(part) >= len(node):
            raise ConfigError(f"{path}: there is no entry '{part}'; the list holds {len(node)}, from 0")
        number = int(part)
        return [*node[:number], _set_at(node[number], parts, depth + 1, value), *node[number + 1 :]]
    if node and not isinstance(node, Mapping):
        raise ConfigError(
            f"{path}: '{parts[depth - 1]}' is a value, not a section; remove '.{'.'.join(parts[depth:])}'"
        )
    return {**(node or {}), part: _set_at((node or {}).get(part), parts, depth + 1, value)}


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``["optim.batch_size=32"]`` -> ``{"optim.batch_size": 32}``; values are YAML.

    Raises:
        ConfigError: a text without ``=``, or a value that is no YAML.
    """
    parsed = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text!r}: expected KEY=VALUE, e.g. --set optim.batch_size=32")
        parsed[key.strip()] = load_yaml(value, where=f"--set {key.strip()}")
    return parsed


class _Loader(yaml.SafeLoader):
    """YAML 1.1's safe loader, which also reads ``1e-4`` and ``800_000`` as numbers."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_yaml(text: str, where: str) -> Any:
    """Parse YAML safely, with ``${NAME}`` left as it stands.

    Raises:
        ConfigError: one line with the place of the mistake.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with one more number format
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}{line}: not valid YAML: {problem}") from None


def expand_environment(value: Any, where: str = "") -> Any:
    """Replace ``${NAME}`` by the environment's value in every string of a nested value.

    Raises:
        ConfigError: a name the environment lacks.
    """
    if isinstance(value, Mapping):
        return {key: expand_environment(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [expand_environment(item, where) for item in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"{where}: ${{{name}}} is not set; run: export {name}=...")
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", lookup, value)


def load_config(path: str | Path, assignments: Iterable[str] = ()) -> TrialConfig:
    """Read a trial's YAML file and apply ``KEY=VALUE`` assignments.

    Raises:
        ConfigError: the file is missing or a value is wrong.
    """
    values, is_search = _read_trial(Path(path))
    if is_search:
        raise ConfigError(f"{path}: is a search, not a trial; run: python -m tune.run {path}")
    return _trial_of(values, path, assignments)


def load_trial(path: str | Path, assignments: Iterable[str] = ()) -> tuple[TrialConfig, bool]:
    """As :func:`load_config`; of a search, what all its trials share. And whether it is a search.

    Raises:
        ConfigError: the file is missing or a value is wrong.
    """
    values, is_search = _read_trial(Path(path))
    return _trial_of(values, path, assignments), is_search


def _read_trial(path: Path) -> tuple[dict[str, Any], bool]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a trial's YAML")
    values = load_yaml(path.read_text(encoding="utf-8"), where=str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(values).__name__}")
    is_search = "search" in values and isinstance(values.get("trial"), dict)
    return values["trial"] if is_search else values, is_search


def _trial_of(values: Mapping[str, Any], path: str | Path, assignments: Iterable[str]) -> TrialConfig:
    overridden = set_dotted(values, parse_assignments(assignments))
    try:
        return TrialConfig.from_dict(expand_environment(overridden))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """One line for the first mistake of a pydantic error: key, value, rule, nearest valid key."""
    first = error.errors()[0]
    path = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{path}: unknown key{suggest(path, _siblings(model, first['loc']), prefix)}"
    if first["type"] == "missing":
        return f"{path}: required key is missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if first["type"] != "value_error" else message
    if first["type"] == "value_error" and isinstance(first["input"], dict | BaseModel):
        return f"{path}: {message}" if path and not message.startswith(path) else message
    return f"{path}: got {first['input']!r}; {message}"


def suggest(key: str, valid: Iterable[str], prefix: str = "") -> str:
    """``"; did you mean 'x'?"`` for the nearest valid key, else the list of valid keys."""
    valid = [prefix + name for name in valid]
    nearest = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean '{nearest[0]}'?"
    return f"; valid here: {', '.join(sorted(valid))}" if valid else ""


def _siblings(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The valid keys beside ``loc``, as full dotted paths."""
    walked: list[str] = []
    for part in loc[:-1]:
        walked.append(str(part))
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return [".".join([*walked, name]) for name in model.model_fields]
