"""Everything that can be known to be wrong before the first trial: data, cameras, state, policy, objective."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from smolvla_core.config import TrialConfig, dotted_keys
from smolvla_core.errors import ConfigError, UserError
from tune.closed_loop_checks import refuse_environment, refuse_unsuited
from tune.fitted_frames import largest
from tune.source import Path_, Source, SpecError
from tune.space import make_space, to_trial_config, warm_starts
from tune.spec import SearchSpec
from tune.spec_checks import check_data

if TYPE_CHECKING:
    from smolvla_core.cache.plan import CachePlan
    from smolvla_core.trial import Inputs

_DATA: Path_ = ("trial", "data", "train", 0, "root")
LEAST_TEST_EPISODES = 2
"""Without a second one nothing is known of how much episodes differ."""
_DATASET = re.compile(r"data\.train\.(\d+)(\.(weight|cameras|task_info|root))?")
_KEY = re.compile(r"[a-z]\w*(\.\w+)*")


@dataclass(frozen=True)
class Facts:
    """What a search is run on.

    Attributes:
        dataset: ``smolvla_core.data.dataset.fingerprint``.
        objective: ``smolvla_core.evaluate.describe_objective``.
        cache: of the point that needs most of it; None where it is off.
    """

    dataset: Mapping[str, Any]
    objective: Mapping[str, Any]
    cache: "CachePlan | None" = None


def preflight(spec: SearchSpec, source: Source | None = None) -> Facts:
    """Resolve every branch of the space against the data, as its trials will do.

    Args:
        spec: a checked specification.
        source: its YAML, to name the line of a mistake.

    Raises:
        UserError: at the first mistake; nothing was started or written but caches.
    """
    try:
        if spec.closed_loop is not None:
            refuse_environment(spec.closed_loop)
        check_data(spec)
        # importing torch and lerobot takes seconds; a wrong path is answered before
        import torch

        from smolvla_core.cache.plan import plan_cache
        from smolvla_core.compiled import refuse_without_compiler
        from smolvla_core.data.dataset import fingerprint
        from smolvla_core.evaluate import describe_objective
        from smolvla_core.trial import resolve

        points = (*warm_starts(spec).values(), *make_space(spec).cover())
        first, *others = [to_trial_config(spec, point) for point in points]
        with _silent_libraries():
            if first.runtime.compile and _trains_on_cpu(spec, first):
                refuse_without_compiler(torch.device("cpu"))
            inputs = resolve(first)
            _read_pictures(inputs)
            caches = [plan_cache(first, inputs), *(plan_cache(config, resolve(config)) for config in others)]
            objective = describe_objective(first)
            if spec.closed_loop is not None:
                refuse_unsuited(spec.closed_loop, inputs.interface, [first, *others])
            if spec.finalists is not None:
                _refuse_too_few(objective["test_episodes"])
                resolve(first.with_values({"eval.test": True}))
            return Facts(fingerprint(first.data), objective, largest(caches))
    except UserError as error:
        raise (_located(error, source) if source else error) from None


def _trains_on_cpu(spec: SearchSpec, config: TrialConfig) -> bool:
    """Whether trials are certain to; where they have a GPU, their machine finds out, not this one."""
    return config.runtime.device == "cpu" or not (spec.resources.auto or spec.resources.gpus)


def _refuse_too_few(test_episodes: int | float | str) -> None:
    if int(test_episodes) < LEAST_TEST_EPISODES:
        raise SpecError(
            ("finalists",),
            f"would be compared on {test_episodes} test episode, from which no interval can be given; raise "
            "data.test_fraction, record more, or remove the finalists",
        )


def _read_pictures(inputs: "Inputs") -> None:
    """Decode the first and the last picture of every camera: videos may be cut short, or a codec missing here."""
    from smolvla_core.data.pictures import Camera

    for source in (inputs, *inputs.others):
        ends = np.array([0, len(source.dataset.frame) - 1])
        for view in source.interface.cameras:
            Camera(source.dataset, view.dataset_key).frames(ends)


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Nothing that lerobot and others log: what is wrong is told in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _located(error: UserError, source: Source) -> ConfigError:
    """The error, with the line in the search's YAML that its key stands on; that of the data where it names none."""
    if isinstance(error, SpecError):
        return source.located(error)
    text = str(error)
    named = _KEY.match(text)
    place = _place(named[0], source) if named else None
    if named is None or place is None:
        return source.located(_KeyNamedError(_DATA, text))
    rest = text[named.end() :]
    return source.located(SpecError(place, rest[2:]) if rest.startswith(": ") else _KeyNamedError(place, text))


def _place(key: str, source: Source) -> Path_ | None:
    """Where a key of ``TrialConfig``, or one of its sections, stands in the YAML; None for any other word."""
    if dataset := _DATASET.fullmatch(key):
        entry: Path_ = ("trial", "data", "train", int(dataset[1]))
        below: Path_ = (*entry, dataset[3]) if dataset[3] else entry
        return below if below in source.lines else entry
    if not any(name == key or name.startswith(f"{key}.") for name in dotted_keys()):
        return None
    searched = [path for path in source.lines if path[0] == "search" and len(path) == 2]
    if ("search", key) in searched:
        return ("search", key)
    place = ("trial", *key.split("."))
    inside = [path for path in searched if str(path[1]).startswith(f"{key}.")]
    return inside[0] if place not in source.lines and inside else place


class _KeyNamedError(SpecError):
    """A mistake whose message names its own key or file."""

    def __init__(self, path: Path_, message: str):
        super().__init__(path, message)
        self.args = (message,)
