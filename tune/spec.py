"""``SearchSpec``: the schema of a search's YAML, and how it is read. Every rule stands here or in
``tune.spec_checks``; all are applied before anything starts.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from smolvla_core.config import Section, explain, parse_assignments, suggest
from smolvla_core.errors import ConfigError
from tune.mlflow_store import resolve_uri
from tune.source import Path_, Source, SpecError, assign, expand, read

Scalar = bool | int | float | str | None
OBJECTIVE = "val/critical_action_mse"
METRICS = (OBJECTIVE, "val/critical_action_l1", "val/critical_energy_score", "val/action_mse", "val/flow_loss")
"""What ``smolvla_core.evaluate`` scores; lower is better for each."""


class FloatParam(Section):
    """A real number between ``low`` and ``high``, both included."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: float | None = Field(default=None, gt=0)
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    """Searched only where each of these keys has the value, or one of the values."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        _check_bounds(self.low, self.high, self.log)
        if self.log and self.step is not None:
            raise ValueError("log and step are both given; give one of them")
        return self


class IntParam(Section):
    """A whole number between ``low`` and ``high``, both included."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: int = Field(default=1, ge=1)
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        _check_bounds(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError("log and step are both given; give one of them")
        return self


class CategoricalParam(Section):
    """One of ``choices``."""

    type: Literal["categorical"]
    choices: tuple[Scalar, ...] = Field(min_length=1)
    when: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)

    @field_validator("choices")
    @classmethod
    def _different(cls, choices: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        if len(set(map(repr, choices))) < len(choices):
            raise ValueError("each choice must stand once")
        return choices


Param = Annotated[FloatParam | IntParam | CategoricalParam, Field(discriminator="type")]


def _check_bounds(low: float, high: float, log: bool) -> None:
    if low >= high:
        raise ValueError(f"low is {low:g}; it must be below high ({high:g})")
    if log and low <= 0:
        raise ValueError(f"low is {low:g}; it must be above 0 where log is true")


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


class Budget(Section):
    """When the search ends: after so many trials, or so many hours of searching."""

    trials: int = Field(ge=1)
    hours: float | None = Field(default=None, gt=0)


class Asha(Section):
    """Asynchronous successive halving (Li et al., 2020), with samples seen as the resource."""

    grace_samples: int = Field(ge=1)
    """The first rung: no trial is stopped before it."""
    reduction_factor: float = Field(default=3, gt=1)
    """eta: about one trial in eta goes on from a rung to the next."""


class Resources(Section):
    """What one trial takes. ``cost_per_hour`` is its price, for the plan's estimate."""

    gpus: float = Field(default=0, ge=0)
    cpus: float = Field(default=1, gt=0)
    cost_per_hour: float | None = Field(default=None, ge=0)

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

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    trial: dict[str, Any]
    """Fixed values of ``TrialConfig``, nested; what is absent has its default."""
    search: dict[str, Param] = Field(min_length=1)
    """Dotted key of ``TrialConfig`` -> the values to search."""
    warm_start: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Name -> a point that is run first and never stopped early."""
    objective: Objective = Objective()
    budget: Budget
    asha: Asha
    resources: Resources = Resources()
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at once. None: as many as the resources allow."""
    tracking: Tracking = Tracking()
    storage: str = "runs"
    seed: int = Field(default=0, ge=0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Validate a nested mapping in full.

        Raises:
            SpecError: one line with the key, the value, the rule and the nearest valid key.
        """
        try:
            spec = cls.model_validate(values)
        except ValidationError as error:
            raise _explained(error) from None
        from tune.spec_checks import check

        check(spec)
        return spec

    @property
    def samples(self) -> int:
        """The budget of one trial, in samples."""
        from smolvla_core.config import OptimConfig

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

    Relative paths are taken from the current folder and made absolute.

    Raises:
        ConfigError: one line that begins with the file and the line of the mistake.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(
            f"{path}: no such file (looked in {file.absolute().parent}); give the path of a search's YAML"
        )
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


def absolute(tree: dict[str, Any]) -> dict[str, Any]:
    """A copy of a search's tree with its relative paths made absolute."""
    copy = dict(tree)
    copy["storage"] = _absolute(copy.get("storage", "runs"))
    tracking = copy.get("tracking")
    if isinstance(tracking, Mapping) and isinstance(tracking.get("uri"), str):
        copy["tracking"] = {**tracking, "uri": resolve_uri(tracking["uri"], Path())}
    trial = copy.get("trial")
    data = trial.get("data") if isinstance(trial, Mapping) else None
    if isinstance(trial, Mapping) and isinstance(data, Mapping):
        data = dict(data)
        if isinstance(data.get("train"), list):
            data["train"] = [
                {**item, "root": _absolute(item["root"])} if isinstance(item, Mapping) and "root" in item else item
                for item in data["train"]
            ]
        if "cache_dir" in data:
            data["cache_dir"] = _absolute(data["cache_dir"])
        copy["trial"] = {**trial, "data": data}
    return copy


def _absolute(path: Any) -> Any:
    return path if not isinstance(path, str) or is_uri(path) else str(Path(path).expanduser().absolute())


def is_uri(text: str) -> bool:
    """Whether it is an address (``s3://...``) and no path."""
    return bool(urlsplit(text).scheme) and "://" in text


def _explained(error: ValidationError) -> SpecError:
    """One line for the first mistake that pydantic found."""
    first = error.errors()[0]
    path = _without_tag(first["loc"])
    kind = first["type"]
    if kind == "extra_forbidden":
        return SpecError(path, f"unknown key{suggest(str(path[-1]), _siblings(first['loc']))}")
    if kind == "missing":
        return SpecError(path[:-1], f"required key '{path[-1]}' is missing")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        given = first["input"].get("type") if isinstance(first["input"], Mapping) else first["input"]
        place = (*path, "type") if isinstance(first["input"], Mapping) and "type" in first["input"] else path
        return SpecError(place, f"got {given!r}; 'type' must be float, int or categorical")
    text = explain(error, SearchSpec).partition(": ")[2] or first["msg"]
    return SpecError(path, text)


def _without_tag(loc: Path_) -> Path_:
    """Pydantic names the member of a union in the path; a user did not write it."""
    if len(loc) > 2 and loc[0] == "search":
        loc = (*loc[:2], *loc[3:])
    return loc if "when" not in loc else loc[: loc.index("when") + 2]


def _siblings(loc: Path_) -> list[str]:
    models: dict[str, type[BaseModel]] = {"float": FloatParam, "int": IntParam, "categorical": CategoricalParam}
    if len(loc) > 2 and loc[0] == "search":
        return list(models[str(loc[2])].model_fields)
    if len(loc) == 1:
        return list(SearchSpec.model_fields)
    annotation = SearchSpec.model_fields[str(loc[0])].annotation
    return list(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
