"""Everything that can be known to be wrong before the first trial: data, cameras, state, policy, objective."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smolvla_core.config import dotted_keys
from smolvla_core.errors import ConfigError, UserError
from tune.source import Source, SpecError
from tune.space import make_space, to_trial_config, warm_starts
from tune.spec import SearchSpec
from tune.spec_checks import check_data


@dataclass(frozen=True)
class Facts:
    """What a search is run on.

    Attributes:
        dataset: ``smolvla_core.data.dataset.fingerprint``.
        objective: ``smolvla_core.evaluate.describe_objective``.
    """

    dataset: Mapping[str, Any]
    objective: Mapping[str, Any]


def preflight(spec: SearchSpec, source: Source | None = None) -> Facts:
    """Resolve every branch of the space against the data, as its trials will do.

    Args:
        spec: a checked specification.
        source: its YAML, to name the line of a mistake.

    Raises:
        UserError: at the first mistake; nothing was started or written but caches.
    """
    try:
        check_data(spec)
        # importing torch and lerobot takes seconds; a wrong path is answered before
        from smolvla_core.data.dataset import fingerprint
        from smolvla_core.evaluate import describe_objective
        from smolvla_core.trial import resolve

        for params in (*warm_starts(spec).values(), *make_space(spec).cover()):
            resolve(to_trial_config(spec, params))
        config = to_trial_config(spec, make_space(spec).cover()[0])
        return Facts(fingerprint(config.data), describe_objective(config))
    except SpecError as error:
        raise (source.located(error) if source else error) from None
    except UserError as error:
        raise (_located(error, source) if source else error) from None


def _located(error: UserError, source: Source) -> ConfigError:
    """The error of a trial's configuration, with the line in the search's YAML that its key stands on."""
    key, colon, message = str(error).partition(": ")
    known = dotted_keys()
    if colon and (key in known or any(name.startswith(f"{key}.") for name in known)):
        place = ("search", key) if ("search", key) in source.lines else ("trial", *key.split("."))
        return source.located(SpecError(place, message))
    return ConfigError(f"{source.name}: {error}")
