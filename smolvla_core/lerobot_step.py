"""The one step that a policy with engineered features needs beside lerobot's own.

A saved pre-processor names it by its import path, so lerobot loads such a policy by itself wherever
``smolvla_core`` is installed, and says that it is missing where it is not. Policies without
engineered features do not use it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.processor import ObservationProcessorStep
from torch import Tensor

from smolvla_core.data.keys import STATE, TASK_INFO
from smolvla_core.errors import DataError
from smolvla_core.features import append_features, feature_from_dict


@dataclass
class AppendFeaturesStep(ObservationProcessorStep):
    """Appends engineered features to ``observation.state``: (R,) or (B, R) -> (..., R + F).

    Args:
        features: what ``smolvla_core.features.feature_to_dict`` gives for each.
    """

    features: list[dict[str, Any]] = field(default_factory=list)

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation with a longer state.

        Raises:
            DataError: it lacks the object poses that a feature is made of.
        """
        if STATE not in observation:
            return observation
        features = [feature_from_dict(values) for values in self.features]
        state, poses = observation[STATE], observation.get(TASK_INFO)
        if poses is None and any(feature.reads_task_info for feature in features):
            raise DataError(
                f"the observation has no '{TASK_INFO}', which this policy needs; add it, or use another policy"
            )
        raw = _rows(state)
        appended = append_features(raw, features, raw, None if poses is None else _rows(poses))
        longer = torch.from_numpy(appended).to(state).reshape(*state.shape[:-1], -1)
        return {**observation, STATE: longer}

    def get_config(self) -> dict[str, Any]:
        """What a saved pre-processor keeps of the step."""
        return {"features": self.features}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """The state is longer by the features' width."""
        observed = dict(features[PipelineFeatureType.OBSERVATION])
        if STATE in observed:
            width = sum(feature_from_dict(values).width for values in self.features)
            state = observed[STATE]
            observed[STATE] = PolicyFeature(state.type, (state.shape[0] + width,))
        return {**features, PipelineFeatureType.OBSERVATION: observed}


def _rows(values: Tensor) -> np.ndarray:
    """(D,) or (B, D) as (B, D) float32."""
    return np.atleast_2d(values.detach().cpu().numpy().astype(np.float32))
