"""The results of a closed-loop evaluation as one JSON file."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smolvla_core.closed_loop.environment import EnvSpec
from smolvla_core.closed_loop.scores import SCORES, Estimate
from smolvla_core.closed_loop.stage import Episode

KIND = "smolvla_core.closed_loop"
"""Value of ``kind``, by which such a file is known."""
RESULTS_FILE = "results.json"


def document(
    env: EnvSpec,
    policy: Mapping[str, Any],
    seed: int,
    episodes: Sequence[Episode],
    scores: Mapping[str, Estimate],
) -> dict[str, Any]:
    """Everything about an evaluation: what was run, the means with intervals, and each episode."""
    return {
        "kind": KIND,
        "env": asdict(env),
        "policy": dict(policy),
        "seed": seed,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "scores": {name: estimate.to_dict() for name, estimate in scores.items()},
        "episodes": [asdict(episode) for episode in episodes],
    }


def write_results(folder: Path, results: Mapping[str, Any]) -> Path:
    """Write ``results.json``; it appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    file, part = folder / RESULTS_FILE, folder / f".{RESULTS_FILE}.{os.getpid()}.part"
    part.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    part.replace(file)
    return file


def score_lines(scores: Mapping[str, Estimate], count: int) -> list[str]:
    """The means in words."""
    names = {"eggs_placed": "eggs placed", "q": "Q", "success": "success"}
    lines = [f"Over {count} {'instance' if count == 1 else 'instances'}, with 95 % intervals:"]
    for name in SCORES:
        found = scores[name]
        lines.append(
            f"  {names[name]:<12} {100 * found.mean:5.1f} %  ({100 * found.low:.1f} to {100 * found.high:.1f} %)"
        )
    return lines
