"""Keys of a LeRobot dataset's features, and what its pictures' shape says."""

from collections.abc import Mapping
from typing import Any

STATE = "observation.state"
ACTION = "action"
TIMESTAMP = "timestamp"
TASK_INFO = "observation.task_info"
CAM_REL_POSES = "observation.cam_rel_poses"
SEGMENTATION = "seg_instance_id"
"""Part of the keys of BEHAVIOR's segmentation videos, which their metadata does not mark as depth's are."""


def dim_names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a feature's dims; recorders list them, list them in a list, or under a name of their own."""
    names: Any = feature.get("names") or ()
    if isinstance(names, Mapping):
        names = list(names.values()) if all(isinstance(value, list) for value in names.values()) else list(names)
    nested = [name if isinstance(name, list | tuple) else [name] for name in names]
    return tuple(str(name) for part in nested for name in part)


def picture_size(feature: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of a camera's pictures; some recorders put the channels first, and say so in ``names``."""
    shape, names = feature["shape"], feature.get("names")
    first = names[0] if isinstance(names, list | tuple) and names else None
    height, width = shape[1:] if first in ("channels", "channel") else shape[:2]
    return int(height), int(width)
