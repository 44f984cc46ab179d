"""The best trial of a study as a registered model: a version a winner, the latest under an alias.

The policy is copied into the trial's run first, since the study's own ``best/`` holds another policy
once another trial is the best.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

ALIAS = "champion"
FOLDER = "policy"
NO_REGISTRY = frozenset(["FEATURE_DISABLED", "ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"])
"""Error codes of servers without a model registry."""


@dataclass(frozen=True)
class Winner:
    """What is registered: a training of a study, as it was after ``samples``.

    ``number`` is a trial's, or the text that names a training which is no trial of the search.
    """

    study_id: str
    run_id: str
    number: int | str
    samples: int

    @property
    def tags(self) -> dict[str, str]:
        """By which its version is found again."""
        return {"study_id": self.study_id, "trial.number": str(self.number), "samples_seen": str(self.samples)}


def register(client: "MlflowClient", name: str, winner: Winner, policy: str, summary: Mapping[str, Any]) -> str | None:
    """Register a policy, unless that was done before, and give it the alias.

    Args:
        client: of the store.
        name: of the registered model; made where there is none.
        winner: what it is.
        policy: folder of the LeRobot policy.
        summary: ``tune.summary.Summary.to_dict()``.

    Returns:
        The version; None where the store has no model registry.

    Raises:
        MlflowException: the store refused, or did not answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    try:
        version = _version_of(client, name, winner) or _new_version(client, name, winner, policy, summary)
        client.set_registered_model_alias(name, ALIAS, version)
    except UnsupportedModelRegistryStoreURIException:
        return None
    except MlflowException as error:
        if error.error_code not in NO_REGISTRY:
            raise
        return None
    return version


def version_link(name: str, version: str) -> str:
    """The version as Markdown, with its place in MLflow's pages."""
    return f"[{name}, version {version}](#/models/{name}/versions/{version})"


def _version_of(client: "MlflowClient", name: str, winner: Winner) -> str | None:
    """The version that an earlier session registered for this winner."""
    from mlflow.exceptions import RESOURCE_ALREADY_EXISTS, ErrorCode, MlflowException

    try:
        client.create_registered_model(name, description="Best trials of hyperparameter searches of this name.")
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    found: list[ModelVersion] = list(client.search_model_versions(f"name = '{name}'"))
    return next((str(one.version) for one in found if winner.tags.items() <= one.tags.items()), None)


def _new_version(client: "MlflowClient", name: str, winner: Winner, policy: str, summary: Mapping[str, Any]) -> str:
    place = f"{FOLDER}/{winner.samples}_samples"
    client.log_artifacts(winner.run_id, policy, place)
    what = f"Trial {winner.number}" if isinstance(winner.number, int) else winner.number.capitalize()
    policy_of = (summary.get("finalists") or {}).get("policy")
    value = policy_of["validation"] if policy_of else summary["best"]["value"]
    made = client.create_model_version(
        name,
        f"runs:/{winner.run_id}/{place}",
        winner.run_id,
        tags=winner.tags | {str(summary["metric"]): f"{value:.6g}"},
        description=f"{what}: {summary['metric']} = {value:.6g} at {winner.samples:,} samples.",
        await_creation_for=0,
    )
    return str(made.version)
