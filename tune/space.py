"""The search space: ``SearchSpec`` -> Optuna's define-by-run space; sampled values -> ``TrialConfig``."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial
from pydantic import TypeAdapter, ValidationError

from smolvla_core.config import TrialConfig, dotted_keys, weight_keys
from smolvla_core.config_values import set_dotted
from tune.parameters import CategoricalParam, FloatParam, IntParam, Scalar
from tune.spec import SearchSpec

MOST_CORNERS = 2000
_ABSENT = object()


@dataclass(frozen=True)
class Space:
    """Parameters in an order in which every condition refers to an earlier one.

    Attributes:
        distributions: key -> Optuna distribution; integers include both ends.
        conditions: key -> {other key: the values at which the key is active}.
        fixed: values of the conditions' keys that are not searched themselves.
    """

    distributions: Mapping[str, BaseDistribution]
    conditions: Mapping[str, Mapping[str, tuple[Scalar, ...]]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, trial: BaseTrial) -> dict[str, Any]:
        """Draw the active parameters; Optuna calls this 'define by run'."""
        params: dict[str, Any] = {}
        for key, distribution in self.distributions.items():
            if self.is_active(key, params):
                params[key] = _suggest(trial, key, distribution)
        return params

    def is_active(self, key: str, params: Mapping[str, Any]) -> bool:
        """Whether ``key`` acts at this point; ``params`` holds the active keys before it."""
        known = {**self.fixed, **params}
        return all(
            name in known and _among(known[name], values) for name, values in self.conditions.get(key, {}).items()
        )

    def corners(self, seed: int = 0) -> Iterator[dict[str, Any]]:
        """Points at the ends of every parameter and at the values that conditions name: all
        combinations, or a seeded choice of ``MOST_CORNERS``.
        """
        values_of = {key: self._tried_values(key) for key in self.distributions}
        count = math.prod(map(len, values_of.values()))
        if count <= MOST_CORNERS:
            drawn: Iterator[tuple[Any, ...]] = itertools.product(*values_of.values())
        else:
            rng = np.random.default_rng(seed)
            drawn = (tuple(v[rng.integers(len(v))] for v in values_of.values()) for _ in range(MOST_CORNERS))
        for values in drawn:
            yield self.restrict(dict(zip(values_of, values, strict=True)))

    def restrict(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The active part of a point that gives every key a value."""
        params: dict[str, Any] = {}
        for key in self.distributions:
            if self.is_active(key, params):
                params[key] = values[key]
        return params

    def cover(self) -> list[dict[str, Any]]:
        """Few points among which every choice, both ends of every number and every condition occur."""
        corners = [(corner, {(key, repr(value)) for key, value in corner.items()}) for corner in self.corners()]
        missing = set().union(*(items for _, items in corners))
        points: list[dict[str, Any]] = []
        while missing:
            point, items = max(corners, key=lambda corner: len(corner[1] & missing))
            points.append(point)
            missing -= items
        return points

    def is_reachable(self, key: str) -> bool:
        """Whether ``key`` is active at some point of the space."""
        return any(key in corner for corner in self.of(key).corners())

    def of(self, *keys: str) -> "Space":
        """The part of the space that decides about some keys."""
        return Space({name: self.distributions[name] for name in self._needed_by(keys)}, self.conditions, self.fixed)

    def _needed_by(self, keys: Iterable[str]) -> list[str]:
        """The keys and those that their conditions depend on, in order."""
        found = set(keys)
        for name in reversed(list(self.distributions)):  # a condition refers to earlier keys only
            if name in found:
                found |= self.conditions.get(name, {}).keys()
        return [name for name in self.distributions if name in found]

    def _tried_values(self, key: str) -> list[Any]:
        distribution = self.distributions[key]
        named = [value for when in self.conditions.values() for value in when.get(key, ())]
        if isinstance(distribution, CategoricalDistribution):
            return ends(distribution)
        return list(dict.fromkeys([*ends(distribution), *(v for v in named if contains(distribution, v))]))


def make_space(spec: SearchSpec) -> Space:
    """The space of a checked specification."""
    base = base_values(spec)
    conditions = {
        key: {name: _as_tuple(values) for name, values in param.when.items()}
        for key, param in spec.search.items()
        if param.when
    }
    order = sorted_by_condition(conditions, list(spec.search))
    fixed = {name: base[name] for when in conditions.values() for name in when if name not in spec.search}
    return Space({key: to_distribution(spec.search[key]) for key in order}, conditions, fixed)


def to_distribution(param: FloatParam | IntParam | CategoricalParam) -> BaseDistribution:
    """A parameter as Optuna's distribution."""
    if isinstance(param, FloatParam):
        return FloatDistribution(param.low, param.high, log=param.log, step=param.step)
    if isinstance(param, IntParam):
        return IntDistribution(param.low, param.high, log=param.log, step=param.step)
    return CategoricalDistribution(param.choices)


def to_trial_config(spec: SearchSpec, params: Mapping[str, Any]) -> TrialConfig:
    """The whole configuration of a trial.

    Raises:
        ConfigError: the values do not go together.
    """
    return TrialConfig.from_dict(set_dotted(spec.trial, {**params, **shared_values(spec)}))


def shared_values(spec: SearchSpec) -> dict[str, Any]:
    """What the space gives to all trials alike: they report at every rung, and are scored at the
    time stamps that all its frame strides have.
    """
    base = base_values(spec)
    scored = base["eval.frame_stride"] or math.lcm(*map(int, every_value(spec, "data.frame_stride")))
    return {"eval.at": list(spec.rungs[:-1]), "eval.frame_stride": scored}


def every_value(spec: SearchSpec, key: str) -> list[Any]:
    """All values of a key in the space, where it is a choice or a whole number; its one value if it is not searched."""
    param = spec.search.get(key)
    if param is None:
        return [base_values(spec)[key]]
    if isinstance(param, IntParam):
        return list(range(param.low, param.high + 1, param.step))
    return ends(to_distribution(param))


def known_keys(spec: SearchSpec) -> dict[str, Any]:
    """Every key that a condition or a search can name: the leaves of ``TrialConfig``, and the datasets' weights."""
    data = spec.trial.get("data")
    datasets = data.get("train") if isinstance(data, Mapping) else None
    return dotted_keys() | weight_keys(len(datasets) if isinstance(datasets, list | tuple) else 0)


def base_values(spec: SearchSpec) -> dict[str, Any]:
    """What every key of ``TrialConfig`` is where it is not searched: the fixed value, else the default."""
    values: dict[str, Any] = {}
    for key, info in known_keys(spec).items():
        node: Any = spec.trial
        for part in key.split("."):
            if isinstance(node, list | tuple) and part.isdecimal():
                node = node[int(part)]
            else:
                node = node.get(part, _ABSENT) if isinstance(node, Mapping) else _ABSENT
        values[key] = info.get_default(call_default_factory=True) if node is _ABSENT else node
    return values


def typed_values(spec: SearchSpec) -> dict[str, Any]:
    """The fixed values, in which a number or switch that is text, as ``${NAME}`` gives it, is one."""
    known, base = known_keys(spec), base_values(spec)
    read = {key: _read(known[key].annotation, text) for key, text in base.items() if isinstance(text, str)}
    return set_dotted(spec.trial, {key: value for key, value in read.items() if not isinstance(value, str)})


def _read(annotation: Any, text: str) -> bool | int | float | str:
    try:
        value = TypeAdapter(annotation).validate_python(text)
    except ValidationError:  # the checks say what is wrong with it
        return text
    return value if isinstance(value, bool | int | float) else text


def complete(space: Space, point: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A warm start with the active keys it does not mention at their fixed or default values."""
    params: dict[str, Any] = {}
    for key in space.distributions:
        if space.is_active(key, params):
            params[key] = point.get(key, base[key])
    return params


def warm_starts(spec: SearchSpec) -> dict[str, dict[str, Any]]:
    """The warm starts in full, by name, in the order in which they run."""
    space, base = make_space(spec), base_values(spec)
    return {name: complete(space, point, base) for name, point in spec.warm_start.items()}


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value lies in a distribution; unlike Optuna's own test, of the right type too."""
    if isinstance(distribution, CategoricalDistribution):
        return _among(value, distribution.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if not distribution.low <= value <= distribution.high:
        return False
    steps = (value - distribution.low) / distribution.step if distribution.step else 0.0
    return abs(steps - round(steps)) < 1e-8


def describe(distribution: BaseDistribution) -> str:
    """A distribution in a few words, e.g. ``1e-07 to 1e-05, log``."""
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    step = f", step {distribution.step:g}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low:g} to {distribution.high:g}{', log' if distribution.log else ''}{step}"


def sorted_by_condition(conditions: Mapping[str, Mapping[str, Any]], keys: list[str]) -> list[str]:
    """``keys`` reordered so that each stands after those its condition names; otherwise as given.

    Raises:
        ValueError: conditions that run in a circle; its text is the key that closes it.
    """
    order: list[str] = []

    def visit(key: str, above: tuple[str, ...]) -> None:
        if key in above:
            raise ValueError(key)
        if key in order or key not in keys:
            return
        for name in conditions.get(key, {}):
            visit(name, (*above, key))
        order.append(key)

    for key in keys:
        visit(key, ())
    return order


def _suggest(trial: BaseTrial, key: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(key, distribution.choices)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(key, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(key, low, high, step=step, log=log)
    raise TypeError(f"{key}: a {type(distribution).__name__} cannot be searched")


def ends(distribution: BaseDistribution) -> list[Any]:
    """Every choice, or both ends of a number: the values that a space is tried at."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return [distribution.low, distribution.high]


def _among(value: Any, values: tuple[Any, ...]) -> bool:
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values)


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, list | tuple) else (values,)
