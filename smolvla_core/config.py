"""``TrialConfig``: everything that defines one training run, and the only place a default stands.

Lengths of training are in *samples* (training frames drawn), never in steps or epochs, so that
trials with different batch sizes can be compared. Times are in seconds, distances in metres.
"""

from collections.abc import Mapping
from os.path import expanduser
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from smolvla_core.config_errors import explain, suggest
from smolvla_core.config_values import set_dotted
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

    basket: tuple[int, int] | None = None
    """First dim of the basket's position, and the one past its last: x and y, or x, y and z. For features."""
    objects: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Kind of objects -> the first of the three dims of each one's position. For ``auxiliary.localization``."""
    frame: Literal["world", "robot"] = "world"
    """``world``: the robot's own pose is taken from the raw state. ``robot``: as end effectors are."""

    @field_validator("basket")
    @classmethod
    def _two_or_three_dims(cls, basket: tuple[int, int] | None) -> tuple[int, int] | None:
        if basket is not None and (basket[0] < 0 or basket[1] - basket[0] not in (2, 3)):
            raise ValueError("must be [first, past the last] of 2 or 3 dims, e.g. [13, 16]")
        return basket

    @field_validator("objects")
    @classmethod
    def _some_of_each(cls, objects: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        for kind, firsts in objects.items():
            if not firsts or min(firsts) < 0:
                raise ValueError(f"{kind} must be the first dims of one object or more, e.g. [13] or [0, 13, 26]")
        return objects

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.basket is None and not self.objects:
            raise ValueError("says nothing; give 'basket', e.g. [13, 16], or 'objects', e.g. {basket: [13]}")
        return self


class DatasetSource(Section):
    """One LeRobot dataset, on disk (``root``) or on the hub (``repo_id``)."""

    root: str | None = None
    repo_id: str | None = None
    weight: float = Field(default=1.0, ge=0)
    """Its share of the samples is its weight over the sum of all weights. 0: never drawn."""
    cameras: dict[str, str] | None = None
    """In place of ``data.cameras``, where this dataset names its cameras differently."""
    task_info: TaskInfoConfig | None = None
    """Where object poses stand, for features and localization. Where it is given, the poses are read."""
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

    @property
    def fresh_colors(self) -> bool:
        """Whether colours are jittered anew for each sample, so that nothing made of a picture is seen twice."""
        return any(self.color_amounts) and self.color_views is None

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

    image_size: int = Field(default=64, ge=32, le=512)
    """Pixels to a side that a picture is brought to: a multiple of ``patch_size * shuffle``."""
    patch_size: int = Field(default=16, ge=4, le=32)
    """Pixels to a side of what the tower sees as one."""
    shuffle: int = Field(default=2, ge=1, le=4)
    """Patches to a side that the connector joins in one token: a picture has (image_size / patch_size / shuffle)**2."""
    hidden_size: int = Field(default=64, ge=16, multiple_of=16)
    layers: int = Field(default=4, ge=2, multiple_of=2)
    vision_hidden_size: int = Field(default=32, ge=16, multiple_of=16)
    vision_layers: int = Field(default=2, ge=1)
    expert_width: float = Field(default=0.75, gt=0, le=1)
    whole_instruction: bool = False
    """Whether the Easter eggs' instruction is one token, where it has 55 as words: a third of the compute."""
    init_seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _whole_tokens(self) -> Self:
        if self.image_size % (self.patch_size * self.shuffle):
            raise ValueError(
                f"policy.tiny.image_size is {self.image_size}; it must be a multiple of policy.tiny.patch_size times "
                f"policy.tiny.shuffle ({self.patch_size * self.shuffle})"
            )
        return self


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
    relative_actions: bool = False
    """Joints' positions are learned as the way from where they stand when the chunk begins, and given out as
    positions; see ``smolvla_core.relative``."""
    train_expert_only: bool = True
    freeze_vision_encoder: bool = True
    tiny: TinyConfig = TinyConfig()

    @field_validator("pretrained")
    @classmethod
    def _in_home(cls, name: str) -> str:
        return expanduser(name)

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


class AuxiliaryConfig(Section):
    """Weights of losses beside the flow-matching loss; 0 is off."""

    localization: float = Field(default=0.0, ge=0)
    """Where objects are in the pictures, see ``smolvla_core.localization``. Above 0 it needs ``task_info.objects``
    of the main dataset, and a VLM that is trained."""


class OptimConfig(Section):
    """Optimizer, schedule and length. The defaults are lerobot's SmolVLA preset at batch 8."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """``muon``: for the matrices of the transformers' layers, beside AdamW, whose ``betas`` and ``eps`` are; see
    ``smolvla_core.optimizers``."""
    batch_size: int = Field(default=8, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples a forward pass; gradients are accumulated up to the batch. None: the batch."""
    samples: int = Field(default=800_000, ge=1)
    flow_draws: int = Field(default=1, ge=1)
    """Draws of noise and time for each sample; their losses are averaged. The VLM runs once for all of them."""
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
    export; lower in the first steps (``learner.average_decay``). None: off."""

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
    """Where and how it runs. Nothing here changes what is learned but ``seed``; ``precision`` and ``compile`` round,
    and on a CPU whether keys and values are kept (``prefixes``, the cache and its size).
    """

    seed: int = Field(default=0, ge=0)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``. ``auto``: cuda where there is one, else cpu."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 autocast on a GPU that has it, fp32 elsewhere."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch. None: torch's own choice."""
    fast_forward: bool = True
    """The exact fast forward, also of a VLM that is trained. False: lerobot's own, to compare."""
    compile: bool = False
    """``torch.compile`` of the fast forward's steps, for each shape of a batch: a minute or more before the first,
    and the same numbers but for rounding. What it wins on a machine: ``python -m tests.benchmarks.step``."""
    cache: str = Field(default="auto", examples=["auto", "off", "a folder"])
    """Where what is computed once per frame is kept: a folder, ``auto`` for ``features`` in
    ``data.cache_dir``, or ``off``. The numbers are the same; see ``smolvla_core.cache``."""
    cache_gb: float = Field(default=50.0, gt=0)
    """The most that all of that folder may take on the disk, in GB (10**9 bytes)."""
    prefixes: Literal["auto", "off"] = "auto"
    """What the frozen VLM makes of a frame, kept in the cache too. ``auto``: on a CPU, where it has room."""
    prefix_gb: float = Field(default=1.0, ge=0)
    """Memory of a trial, in GB, for what the frozen VLM makes of the frames that every evaluation scores,
    where the cache does not keep it."""
    log_every_samples: int = Field(default=1000, ge=1)
    """How often training metrics are reported between evaluations."""

    @model_validator(mode="after")
    def _compiles_what_is_ours(self) -> Self:
        if self.compile and not self.fast_forward:
            raise ValueError(
                "compile is of the fast forward, which fast_forward: false turns off; remove one of the two"
            )
        return self

    @field_validator("cache", "prefixes", mode="before")
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
    auxiliary: AuxiliaryConfig = AuxiliaryConfig()
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

    @model_validator(mode="after")
    def _locates_what_is_named(self) -> Self:
        where = self.data.train[0].task_info
        if not self.auxiliary.localization:
            return self
        if where is None or not where.objects:
            raise ValueError(
                "auxiliary.localization is above 0, but nothing says what is to be located; give the main dataset "
                "task_info: {objects: {...}}, or set it to 0"
            )
        if self.policy.train_expert_only:
            raise ValueError(
                "auxiliary.localization is above 0, but the VLM is frozen, so that it would change nothing; set "
                "policy.train_expert_only and policy.freeze_vision_encoder to false, or it to 0"
            )
        if not self.runtime.fast_forward:
            raise ValueError(
                "auxiliary.localization is above 0, but lerobot's own forward gives out no image tokens; set "
                "runtime.fast_forward to true, or it to 0"
            )
        return self

    @property
    def frozen_vlm(self) -> bool:
        """Whether what tower and VLM make of a frame is a constant, made apart from what is trained."""
        return self.policy.train_expert_only and self.runtime.fast_forward

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


ACTS_WHERE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "weighting.alpha": ("weighting.scheme", ("temporal",)),
    "weighting.factor": ("weighting.scheme", ("segment", "annotation")),
    "weighting.segment": ("weighting.scheme", ("segment",)),
    "weighting.per_step": ("weighting.scheme", ("temporal", "segment", "annotation")),
    "weighting.normalize": ("weighting.scheme", ("temporal", "segment", "annotation")),
    "curriculum.share": ("curriculum.scheme", ("second_half",)),
    "curriculum.start": ("curriculum.scheme", ("second_half",)),
    "curriculum.ramp": ("curriculum.scheme", ("second_half",)),
    "optim.final_lr": ("optim.schedule", ("cosine", "linear")),
    "policy.tiny": ("policy.pretrained", (TINY,)),
}
"""Key, or section -> another key, and the values of it under which it acts at all."""
