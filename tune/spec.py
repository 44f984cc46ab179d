"""``SearchSpec``: the schema of a search's YAML, and how it is read. Every rule stands here, in
``tune.parameters`` or in ``tune.spec_checks``; all are applied before anything starts.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from smolvla_core.config import OptimConfig, Section
from smolvla_core.config_errors import suggest
from smolvla_core.config_values import parse_assignments
from smolvla_core.errors import ConfigError
from tune.closed_loop_spec import ClosedLoop
from tune.parameters import CategoricalParam, FloatParam, IntParam, Param, Scalar
from tune.source import Source, SpecError, assign, expand, read
from tune.spec_errors import explained
from tune.tracking.mlflow_store import resolve_uri

__all__ = [
    "METRICS",
    "OBJECTIVE",
    "Asha",
    "Budget",
    "Finalists",
    "CategoricalParam",
    "FloatParam",
    "IntParam",
    "Objective",
    "Param",
    "Resources",
    "Scalar",
    "SearchSpec",
    "Tracking",
    "absolute",
    "is_folder",
    "is_uri",
    "load_spec",
]

PROJECT = Path(__file__).resolve().parents[1]
"""The folder that this package was installed from, where it is a checkout."""
LONGEST_NAME = 200
"""Characters of a study's name; its folder has the time too, and a file system takes 255."""
OBJECTIVE = "val/critical_action_mse"
FLOW_LOSS = "val/flow_loss"
METRICS = (OBJECTIVE, "val/critical_action_l1", "val/critical_energy_score", "val/action_mse", FLOW_LOSS)
"""What ``smolvla_core.evaluate`` scores; lower is better for each."""


class Objective(Section):
    """What is compared between trials."""

    metric: str = OBJECTIVE
    mode: Literal["min", "max"] = "min"

    @field_validator("metric")
    @classmethod
    def _scored(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no such metric{suggest(metric, METRICS)}")
        return metric

    @field_validator("mode")
    @classmethod
    def _less_is_better(cls, mode: str) -> str:
        if mode == "max":
            raise ValueError("every metric is an error, of which less is better; set min")
        return mode


class Budget(Section):
    """When the search ends: after so many trials, or so many hours, the finalists' included."""

    trials: int = Field(ge=1)
    hours: float | None = Field(default=None, gt=0)


class Asha(Section):
    """Asynchronous successive halving (Li et al., 2020), with samples seen as the resource."""

    grace_samples: int = Field(ge=1)
    """The first rung: no trial is stopped before it."""
    reduction_factor: float = Field(default=3, ge=1.1)
    """eta: about one trial in eta goes on from a rung to the next."""
    keep_stopped: bool = False
    """Keep the states of the trials that were stopped too, so that their policies can still be written;
    each takes as much disk as a checkpoint."""


class Finalists(Section):
    """Who is trained again to the full budget, and scored on the test episodes.

    Those are the best ``k`` trials of the search and every warm start.
    """

    k: int = Field(ge=1)
    seeds: int = Field(default=3, ge=1)
    """Trainings of each, with seeds that the search has not used."""


class Resources(Section):
    """What one trial takes. ``cost_per_hour`` is its price, for the plan's estimate."""

    gpus: float = Field(default=0, ge=0)
    cpus: float = Field(default=1, gt=0)
    cost_per_hour: float | None = Field(default=None, ge=0)
    auto: bool = False
    """Measure what the largest trial needs when the search starts, and run as many at once as fit
    (``resources: auto``); in place of ``gpus`` and ``cpus``."""

    @model_validator(mode="before")
    @classmethod
    def _auto_in_short(cls, values: Any) -> Any:
        return {"auto": True} if values == "auto" else values

    @model_validator(mode="after")
    def _given_or_measured(self) -> Self:
        if self.auto and self.model_fields_set & {"gpus", "cpus"}:
            raise ValueError("auto measures gpus and cpus; leave them out, or auto")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_measured(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        return {key: value for key, value in values.items() if not (self.auto and key in ("gpus", "cpus"))}

    @field_validator("gpus")
    @classmethod
    def _whole_or_a_share(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("above 1 it must be a whole number")
        return gpus


class Tracking(Section):
    """The MLflow store. ``uri`` None: ``mlflow.db`` beside the runs; ``experiment`` None: the study's name."""

    uri: str | None = None
    experiment: str | None = None
    enabled: bool = True


class SearchSpec(Section):
    """A whole search. Read it with :func:`load_spec`, or :meth:`from_dict` to get readable errors."""

    study: str = Field(examples=["easter_eggs"])
    trial: dict[str, Any] = Field(examples=["{data: {train: [{root: /data/eggs}]}}"])
    """Fixed values of ``TrialConfig``, nested; what is absent has its default."""
    search: dict[str, Param] = Field(
        min_length=1, examples=["{optim.lr: {type: float, low: 1.0e-5, high: 1.0e-3, log: true}}"]
    )
    """Dotted key of ``TrialConfig`` -> the values to search."""
    warm_start: dict[str, dict[str, Scalar]] = Field(default_factory=dict, examples=["{baseline: {optim.lr: 1.0e-4}}"])
    """Name -> a point that is run first and never stopped early."""
    objective: Objective = Field(default=Objective(), examples=[f"{{metric: {OBJECTIVE}, mode: min}}"])
    budget: Budget = Field(examples=["{trials: 24}"])
    asha: Asha = Field(examples=["{grace_samples: 16_000, reduction_factor: 3}"])
    finalists: Finalists | None = Field(default=None, examples=["{k: 2, seeds: 3}"])
    """None: nobody is, and nothing is scored on the test episodes."""
    closed_loop: ClosedLoop | None = Field(default=None, examples=["{env: garden, instances: 301-340}"])
    """What the finalists act in, once they are trained. None: in nothing."""
    resources: Resources = Field(default=Resources(), examples=["{gpus: 1, cpus: 4}"])
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at once. None: as many as the resources allow."""
    tracking: Tracking = Field(default=Tracking(), examples=["{experiment: easter_eggs}"])
    storage: str = "runs"
    seed: int = Field(default=0, ge=0)

    @field_validator("study")
    @classmethod
    def _names_a_folder(cls, study: str) -> str:
        if len(study) > LONGEST_NAME:
            raise ValueError(f"it names a folder; give at most {LONGEST_NAME} characters")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", study):
            raise ValueError("it names a folder; begin with a letter or digit, then use letters, digits, _, . and -")
        return study

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Validate a nested mapping in full.

        Raises:
            SpecError: one line with the key, the value, the rule and the nearest valid key.
        """
        try:
            spec = cls.model_validate(values)
        except ValidationError as error:
            raise explained(error, cls) from None
        from tune.space import typed_values
        from tune.spec_checks import check

        spec = spec.model_copy(update={"trial": typed_values(spec)})
        check(spec)
        return spec

    @property
    def samples(self) -> int:
        """The budget of one trial, in samples."""
        return int((self.trial.get("optim") or {}).get("samples", OptimConfig().samples))

    @property
    def rungs(self) -> tuple[int, ...]:
        """The samples at which trials are compared, ascending; the last is the budget."""
        levels, level, power = [], self.asha.grace_samples, 0
        while level < self.samples:
            levels.append(level)
            power += 1
            level = round(self.asha.grace_samples * self.asha.reduction_factor**power)
        return (*levels, self.samples)

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.tracking.experiment or self.study

    @property
    def is_remote(self) -> bool:
        """Whether ``storage`` is an address such as ``s3://...`` and no folder."""
        return is_uri(self.storage)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values; the inverse of :meth:`from_dict`."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The specification as YAML that :func:`load_spec` reads."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def load_spec(path: str | Path, assignments: Iterable[str] = ()) -> tuple[SearchSpec, Source]:
    """Read a search's YAML, apply ``KEY=VALUE`` assignments, and check everything but the data.

    A file that is not found from the current folder is looked for in the project's, since `ray submit` runs
    in the head's home folder. Relative paths in it are taken from the current folder and made absolute.

    Raises:
        ConfigError: one line that begins with the file and the line of the mistake.
    """
    file = _find(Path(path))
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text file; give the path of a search's YAML") from None
    tree, source = read(text, str(path))
    tree, changed = assign(tree, parse_assignments(assignments))
    source = Source(source.name, source.text, source.lines, changed)
    try:
        return SearchSpec.from_dict(absolute(expand(tree))), source
    except SpecError as error:
        raise source.located(error) from None


def _find(path: Path) -> Path:
    places = [Path.cwd()] if path.is_absolute() else [Path.cwd(), PROJECT]
    for file in (place / path for place in places):
        if file.is_dir():
            raise ConfigError(f"{path}: is a folder; give the path of a search's YAML in it")
        if file.is_file():
            return file
    looked = " and ".join(dict.fromkeys(str((place / path).parent) for place in places))
    raise ConfigError(f"{path}: no such file (looked in {looked}); give the path of a search's YAML")


def absolute(tree: dict[str, Any]) -> dict[str, Any]:
    """A copy of a search's tree with its relative paths made absolute."""
    copy = dict(tree)
    copy["storage"] = _absolute(copy.get("storage", "runs"))
    tracking = copy.get("tracking")
    if isinstance(tracking, Mapping) and isinstance(tracking.get("uri"), str):
        copy["tracking"] = {**tracking, "uri": resolve_uri(tracking["uri"], Path())}
    if isinstance(copy.get("trial"), Mapping):
        copy["trial"] = _absolute_trial(copy["trial"])
    return copy


def _absolute_trial(trial: Mapping[str, Any]) -> dict[str, Any]:
    copy = dict(trial)
    data, policy, runtime = copy.get("data"), copy.get("policy"), copy.get("runtime")
    if isinstance(data, Mapping):
        copy["data"] = {key: _absolute(value) if key == "cache_dir" else value for key, value in data.items()}
        if isinstance(data.get("train"), list):
            copy["data"]["train"] = [
                {**item, "root": _absolute(item["root"])} if isinstance(item, Mapping) and "root" in item else item
                for item in data["train"]
            ]
    if isinstance(policy, Mapping) and is_folder(policy.get("pretrained")):
        copy["policy"] = {**policy, "pretrained": _absolute(policy["pretrained"])}
    if isinstance(runtime, Mapping) and runtime.get("cache") not in (None, "auto", "off"):
        copy["runtime"] = {**runtime, "cache": _absolute(runtime["cache"])}
    return copy


def is_folder(pretrained: Any) -> bool:
    """Whether a ``policy.pretrained`` names a folder here, and no policy of the hub."""
    return isinstance(pretrained, str) and Path(pretrained).expanduser().is_dir()


def _absolute(path: Any) -> Any:
    return path if not isinstance(path, str) or is_uri(path) else str(Path(path).expanduser().absolute())


def is_uri(text: str) -> bool:
    """Whether it is an address (``s3://...``) and no path."""
    return bool(urlsplit(text).scheme) and "://" in text
