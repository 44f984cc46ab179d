"""The one place where Ray's ``Tuner`` is put together: for a search, and for a given list of trainings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune as ray_tune
from ray.tune.search import Searcher

from tune.asha import RungScheduler
from tune.ray_session import Brake
from tune.spec import Resources
from tune.trainable import Trainable, in_study

RESTARTS = 2
"""How often a training whose process died is started again from its last checkpoint, unless it reports in between."""


def make_tuner(
    trainable: Trainable,
    fixed: Mapping[str, Any],
    *,
    searcher: Searcher,
    scheduler: RungScheduler,
    number: Callable[[str], int],
    resources: Resources,
    count: int,
    limit: int,
    noun: str,
    session: str,
    storage: str,
    callbacks: Sequence[ray_tune.Callback],
    brake: Brake,
) -> ray_tune.Tuner:
    """A tuner whose trainings report their failures, keep their last state, and are restarted after a death.

    Args:
        trainable: one training.
        fixed: values of its configuration that the searcher does not give.
        searcher: what is run.
        scheduler: what is stopped.
        number: Ray's trial id -> the training's number.
        resources: of each training.
        count: trainings to run.
        limit: at once.
        noun: what Ray calls one.
        session: a name for Ray's files, of this run alone.
        storage: where Ray keeps them.
        callbacks: are told of every event.
        brake: ends it.
    """
    return ray_tune.Tuner(
        ray_tune.with_resources(in_study(trainable, brake.notice.key), {"cpu": resources.cpus, "gpu": resources.gpus}),
        param_space=dict(fixed),
        tune_config=ray_tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=count,
            max_concurrent_trials=limit,
            reuse_actors=True,
            trial_name_creator=_Name(f"{noun}_{{:03d}}", number),
            trial_dirname_creator=_Name("{:03d}", number),
        ),
        run_config=ray_tune.RunConfig(
            name=session,
            storage_path=storage,
            callbacks=list(callbacks),
            # with ``num_to_keep`` Ray would write down all trials at every report; ``tune.retention`` deletes states
            checkpoint_config=ray_tune.CheckpointConfig(),
            failure_config=ray_tune.FailureConfig(max_failures=RESTARTS),
            stop=brake,
            verbose=0,
        ),
    )


class _Name:
    """What Ray calls a training, by its number.

    Ray copies it deeply for every trial, as which a function stays the same, and pickles it into the state
    that it writes of every trial: the searcher behind ``number`` holds all trials, so that with it those
    states would grow as the square of their count.
    """

    def __init__(self, pattern: str, number: Callable[[str], int]):
        self._pattern, self._number = pattern, number

    def __call__(self, trial: Any) -> str:
        return self._pattern.format(self._number(trial.trial_id))

    def __getstate__(self) -> dict[str, Any]:
        return {"_pattern": self._pattern}

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Name":
        return self
