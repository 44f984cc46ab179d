"""One sub-sample of frames for all trials of a search, where the cache has no room for all of them.

It is decided once, before the first trial, and becomes part of the study's specification: a trial that
is resumed on another disk, or run again from its YAML, draws from the same frames.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from smolvla_core.config_values import set_dotted
from tune.spec import SearchSpec

if TYPE_CHECKING:
    from smolvla_core.cache.plan import CachePlan
    from tune.preflight import Facts

KEY = "data.frames"


def fitted(spec: SearchSpec, facts: "Facts") -> SearchSpec:
    """The search, with ``data.frames`` set to what has room; as it is where all has, or where it is given."""
    if facts.cache is None or facts.cache.fit is None or frames_of(spec.to_dict()) is not None:
        return spec
    values = spec.to_dict()
    return SearchSpec.from_dict({**values, "trial": set_dotted(values["trial"], {KEY: facts.cache.fit})})


def largest(caches: Iterable["CachePlan | None"]) -> "CachePlan | None":
    """The plan of the configuration that needs most of the cache; None where it is off for all of them.

    All draw the same frames, and what is kept of each differs; frames give way to embeddings.
    """
    kept = [cache for cache in caches if cache]
    return max(kept, key=lambda cache: (cache.kind == "embeddings", cache.bytes), default=None)


def with_stored(stored: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A YAML's values as they are now, with the number that was decided when the study began.

    Args:
        stored: values of the study's specification.
        now: values of the YAML.
    """
    if frames_of(stored) is None or frames_of(now) is not None:
        return dict(now)
    return {**now, "trial": set_dotted(now["trial"], {KEY: frames_of(stored)})}


def frames_of(values: Mapping[str, Any]) -> Any:
    """``data.frames`` of a search's values, None where it is not set."""
    data = values["trial"].get("data")
    return data.get("frames") if isinstance(data, Mapping) else None
