"""Keys of a LeRobot dataset's features."""

STATE = "observation.state"
ACTION = "action"
TIMESTAMP = "timestamp"
TASK_INFO = "observation.task_info"
SEGMENTATION = "seg_instance_id"
"""Part of the keys of BEHAVIOR's segmentation videos, which their metadata does not mark as depth's are."""
