"""A study's values as MLflow's entities: flat parameters, metrics, tags, a dataset, a description."""

import getpass
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune import versions
from tune.tracking.mlflow_store import mask

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Param, RunTag

# MLflow's own limits (mlflow.utils.validation); longer values are cut, never refused.
KEY_LENGTH, PARAM_LENGTH, TAG_LENGTH, NOTE_LENGTH, DIGEST_LENGTH = 250, 6000, 5000, 8000, 36
METRICS_PER_CALL, PARAMS_PER_CALL = 1000, 100

NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
STEP = "samples_seen"
EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's pages show runs, not conversations."""


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """``{"optim": {"lr": 1e-4}}`` -> ``{"optim.lr": "0.0001"}``; lists become JSON, credentials in
    URLs are blotted out.
    """
    flat: dict[str, str] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[_key(path)] = mask(as_text(value))[:PARAM_LENGTH]
    return flat


def as_text(value: Any) -> str:
    """A value as YAML would write it on one line; lists and mappings as JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool | list | tuple | dict):
        return json.dumps(value, default=str)
    return str(value)


def params(values: Mapping[str, str]) -> Iterator[list["Param"]]:
    """Parameters, in portions of one call."""
    from mlflow.entities import Param

    every = [Param(key, value) for key, value in values.items()]
    for start in range(0, len(every), PARAMS_PER_CALL):
        yield every[start : start + PARAMS_PER_CALL]


def tags(values: Mapping[str, Any]) -> list["RunTag"]:
    """Tags; a value of None is left out."""
    from mlflow.entities import RunTag

    return [
        RunTag(_key(key), as_text(value)[: NOTE_LENGTH if key == NOTE else TAG_LENGTH])
        for key, value in values.items()
        if value is not None
    ]


def metrics(latest: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], timestamp_ms: int) -> list["Metric"]:
    """A report's numbers and the curve points before it, each at its own ``samples_seen``; what is
    no number is left out, and a key comes at most once a step.
    """
    from mlflow.entities import Metric

    points: dict[tuple[str, int], float] = {}
    for values in (latest, *curve):
        step = int(values[STEP])
        for key, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                points.setdefault((_key(key), step), float(value))
    return [Metric(key, value, timestamp_ms, step) for (key, step), value in sorted(points.items(), key=_order)]


def _order(point: tuple[tuple[str, int], float]) -> tuple[int, str]:
    (key, step), _ = point
    return step, key


def dataset_input(dataset: Mapping[str, Any]) -> "DatasetInput":
    """The dataset's fingerprint (``name``, ``root``, ``digest`` and what else it holds) as a run's input."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    root = mask(str(dataset.get("root") or dataset.get("repo_id") or ""))
    profile = {key: value for key, value in dataset.items() if key not in ("name", "root", "schema", "others")}
    entity = Dataset(
        name=str(dataset.get("name") or Path(root).name or "dataset")[:500],
        digest=str(dataset.get("digest") or "unknown")[:DIGEST_LENGTH],
        source_type="local" if Path(root).is_absolute() else "lerobot",
        source=json.dumps({"uri": root}),
        schema=json.dumps(dataset["schema"], default=str) if dataset.get("schema") else None,
        profile=json.dumps(profile, default=str),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])


def provenance() -> dict[str, str]:
    """Tags that say which code ran: git commit, whether the tree was clean, package versions."""
    found = {"mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL"}
    try:
        found["mlflow.user"] = getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in a bare container
        found["mlflow.user"] = "unknown"
    if commit := versions.commit():
        found |= {"mlflow.source.git.commit": commit[versions.COMMIT], "git.dirty": commit[versions.DIRTY]}
    return found | {f"version.{package}": number for package, number in versions.package_versions().items()}


def searched_note(searched: Mapping[str, Any]) -> str:
    """A trial's description: the values that the search chose."""
    return "\n".join(f"- `{key}`: {as_text(value)}" for key, value in searched.items())


def winner_key(summary: Mapping[str, Any]) -> int | str | None:
    """Which run is the study's best: that of the finalist whose policy is exported, else the best trial's."""
    policy = (summary.get("finalists") or {}).get("policy")
    if policy:
        return f"finalist {policy['number']}"
    return summary["best"]["number"] if summary.get("best") else None


def study_note(summary: Mapping[str, Any], links: Mapping[int | str, str], registered: str | None = None) -> str:
    """The study's description, in Markdown: the winner with a link, its gain over the baseline, how the
    trials ended, as which model the winner is registered.

    Args:
        summary: its keys are those of ``Tracker.end_study``.
        links: :func:`winner_key` or a trial's number -> its place in MLflow's pages.
        registered: the model, in Markdown.
    """
    best, baseline, finalists = summary.get("best"), summary.get("baseline"), summary.get("finalists") or {}
    lines = []
    if policy := finalists.get("policy"):
        title = f"{winner_key(summary)} ({finalists['winner']}, seed {policy['seed']})"
        lines.append(f"**Best: {_linked(title, links.get(winner_key(summary) or ''))}**. {finalists['verdict']}")
    if best:
        title = _linked(f"trial {best['number']}" + (f" ({best['name']})" if best.get("name") else ""),
                        links.get(best["number"]))  # fmt: skip
        title = f"Best trial of the search: {title}" if policy else f"**Best: {title}**"
        lines.append(f"{title}, {_score(summary, best)}. {_gain(summary)}")
        if baseline:
            name = baseline.get("name") or f"trial {baseline['number']}"
            lines.append(f"Baseline {name}: {_score(summary, baseline)}.")
        if best.get("params"):
            lines.append(searched_note(best["params"]))
    elif not summary.get("note"):
        lines.append("No trial was completed.")
    if summary.get("note"):
        lines.append(str(summary["note"]))
    if summary.get("trials"):
        lines.append("Trials: " + ", ".join(f"{count} {state}" for state, count in summary["trials"].items()) + ".")
    if registered:
        lines.append(f"Registered model: {registered}")
    for key in ("checkpoint", "report"):
        if summary.get(key):
            lines.append(f"{key.capitalize()}: `{summary[key]}`")
    return "\n\n".join(lines)


def _linked(title: str, link: str | None) -> str:
    return f"[{title}]({link})" if link else title


def summary_metrics(summary: Mapping[str, Any], timestamp_ms: int) -> list["Metric"]:
    """The study's own numbers: the best value, the baseline's, and the gain as a share."""
    from mlflow.entities import Metric

    best, baseline = summary.get("best"), summary.get("baseline")
    values = {
        "best_value": best["value"] if best else None,
        "baseline_value": baseline["value"] if baseline else None,
        "gain": summary.get("gain"),
    }
    return [Metric(key, float(value), timestamp_ms, 0) for key, value in values.items() if value is not None]


def _gain(summary: Mapping[str, Any]) -> str:
    share = summary.get("gain")
    if share is None:
        return "There is no baseline to compare it with."
    if summary["best"]["number"] == summary["baseline"]["number"]:
        return "It is the baseline: nothing better was found."
    return f"{abs(share):.1%} {'better' if share >= 0 else 'worse'} than the baseline{summary.get('gain_noise', '')}."


def _score(summary: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    return f"{summary.get('metric', 'objective')} = {trial['value']:.6g}"


def _key(text: str) -> str:
    """A name MLflow takes: letters, digits and ``_ - . : /`` and blanks."""
    return re.sub(r"[^\w\-./: ]", "_", text)[:KEY_LENGTH]
