"""What MLflow holds of a study of stubs, held against the study's records."""

from mlflow.tracking import MlflowClient

from tune.records import TrialRecord

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


def assert_told_once(uri: str, trials: list[TrialRecord]) -> None:
    """Every trial is one run, whose status and metrics are those of the records, each step once."""
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("stub").experiment_id], max_results=1000)
    (parent,) = [found for found in runs if "trial.number" not in found.data.tags]
    assert parent.info.status == "FINISHED"
    children = [found for found in runs if "trial.number" in found.data.tags]
    assert sorted(int(child.data.tags["trial.number"]) for child in children) == [trial.number for trial in trials]
    for child in children:
        trial = trials[int(child.data.tags["trial.number"])]
        assert child.info.status == STATUS[trial.outcome.state]
        expected: dict[str, list[tuple[int, float]]] = {}
        for result in trial.results:
            for key, value in result.metrics.items():
                expected.setdefault(key, []).append((result.samples_seen, value))
        found = {
            key: [(point.step, point.value) for point in client.get_metric_history(child.info.run_id, key)]
            for key in child.data.metrics
        }
        assert found == expected
