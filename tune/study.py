"""One study from its specification to its summary: searcher, ASHA, resources and storage as a Ray ``Tuner``.

A study resumes from its own records: the searcher and the rungs are filled from them, trials without
an outcome go on from their last checkpoint, and Ray's pickles are never read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Callback

from tune import driver
from tune.asha import RungScheduler
from tune.capacity import concurrency
from tune.choice import put_aside, trials_acts
from tune.closed_loop_runs import let_act, trained_acts
from tune.console import Say, say_line
from tune.finalists import NOUN, SHARED, kept_from_search, kept_seconds, run_finalists, study_summary
from tune.fixed_runs import FixedRuns
from tune.live import Shown, make_events
from tune.mirror import mirrored
from tune.nodes import check_nodes
from tune.packing import resources_of
from tune.ray_session import (
    ENDED_BY_TIME,
    INTERRUPTED,
    Brake,
    ray_session,
    stopped_by_signals,
)
from tune.recorder import Recorder
from tune.records import FINALISTS, Records, TrialRecord
from tune.report import write_results
from tune.report.refresher import Refresher
from tune.resume import resumable, settle, state_storage
from tune.run_folder import write_specification
from tune.searcher import RungSearch
from tune.space import make_space, shared_values, to_trial_config, warm_starts
from tune.spec import Resources, SearchSpec
from tune.summary import Summary
from tune.tracking import Tracker, make_tracker
from tune.trainable import Trainable, smolvla_trainable
from tune.tuner import make_tuner
from tune.versions import code_versions

OPTUNA_FILE = "optuna.db"


@dataclass(frozen=True)
class Study:
    """A study and where it lives.

    Attributes:
        spec: what is searched.
        run_dir: its folder; made where it is missing.
        yaml_text: the YAML as the user wrote it, for the tracker.
        dataset: ``smolvla_core.data.dataset.fingerprint``, for the tracker.
        objective: ``smolvla_core.evaluate.describe_objective``, for the report.
        trainable: takes a trial's configuration; reports as ``smolvla_trainable`` does.
        say: takes each line of progress.
    """

    spec: SearchSpec
    run_dir: Path
    yaml_text: str = ""
    dataset: Mapping[str, Any] | None = None
    objective: Mapping[str, Any] | None = None
    trainable: Trainable = smolvla_trainable
    say: Say = say_line

    def run(self, resume: bool = False) -> Summary:
        """Run the trials and the finalists that are missing, and sum up all of them.

        Args:
            resume: continue what the folder holds.

        Raises:
            StudyBusyError: another living process runs it.
            ConfigError: Ray has not the resources that a trial asks for, or they cannot be measured.
        """
        self.say("Starting Ray; the first trials load torch and the policy before they report ...")
        with ray_session():
            check_nodes(self.spec, self.run_dir)
            with resources_of(self.spec) as (resources, line):
                if line is not None:
                    self.say(line)
                limit = concurrency(resources, self.spec.max_concurrent)
                driver.hold(self.run_dir)
                try:
                    with mirrored(self.spec, self.run_dir) as copying:
                        return self._run(resume, resources, limit, copying)
                finally:
                    driver.release(self.run_dir)

    def _run(self, resume: bool, resources: Resources, limit: int, copying: list[Callback]) -> Summary:
        write_specification(self.run_dir, self.spec, self.yaml_text, self.dataset, self.objective)
        records = Records(self.run_dir)
        used = records.seconds_used()
        session = records.start_session(code_versions(), {"cpus": resources.cpus, "gpus": resources.gpus})
        settle(records, self.spec)
        put_aside(self.spec.closed_loop, records)
        tracker = self._open_tracker(records, resume)
        hours = self.spec.budget.hours
        brake = Brake(
            None if hours is None else hours * 3600 - used,
            lambda: kept_from_search(self.spec, self.run_dir, limit),
            self.say,
        )
        try:
            self._search(records, tracker, brake, resources, limit, f"session_{session:03d}", copying)
            brake = self._compare(records, tracker, brake, resources, limit, f"finalists_{session:03d}", copying)
            return self._finish(records, tracker, brake)
        except BaseException as error:
            tracker.end_study(self._summary(records, "failed", _reason(error)).to_dict())
            raise

    def _search(
        self,
        records: Records,
        tracker: Tracker,
        brake: Brake,
        resources: Resources,
        limit: int,
        session: str,
        copying: list[Callback],
    ) -> None:
        spec, recorded = self.spec, records.trials()
        remaining = spec.budget.trials - sum(trial.outcome is not None for trial in recorded)
        if remaining <= 0:
            return
        events = make_events(self.say, Shown.search(spec), recorded, lambda: brake.reason)
        searcher = self._searcher(recorded)
        scheduler = self._scheduler(searcher, recorded)
        recorder = Recorder(
            records=records,
            tracker=tracker,
            events=events,
            searcher=searcher,
            scheduler=scheduler,
            metric=spec.objective.metric,
            mode=spec.objective.mode,
            rungs=spec.rungs,
            names=list(spec.warm_start),
            make_config=lambda params: to_trial_config(spec, params).to_dict(),
            restore=resumable(records, recorded),
            storage=state_storage(spec, self.run_dir),
            brake=brake,
            keep_stopped=spec.asha.keep_stopped,
        )
        tuner = make_tuner(
            self.trainable,
            {**spec.trial, **shared_values(spec)},
            searcher=searcher,
            scheduler=scheduler,
            number=searcher.number,
            resources=resources,
            count=remaining,
            limit=limit,
            noun="trial",
            session=session,
            storage=state_storage(spec, self.run_dir),
            callbacks=[recorder, *copying, Refresher(self.run_dir)],
            brake=brake,
        )
        with stopped_by_signals(brake), events.shown():
            tuner.fit()

    def _compare(
        self,
        records: Records,
        tracker: Tracker,
        brake: Brake,
        resources: Resources,
        limit: int,
        session: str,
        copying: list[Callback],
    ) -> Brake:
        """Run the finalists, unless the search did not come to its end; the brake that ended the study.

        Acting to choose leaves the finalists their time; where it was cut they are chosen by what is known.
        """
        if self.spec.finalists is None or brake.reason not in (None, *ENDED_BY_TIME):
            return brake
        closed_loop = self.spec.closed_loop
        if closed_loop is not None and closed_loop.choose is not None:
            choosing = Brake(brake.left, lambda: kept_seconds(self.spec, self.run_dir, limit), self.say)
            with stopped_by_signals(choosing):
                let_act(trials_acts(closed_loop, records.trials()), records, tracker, self.say, choosing)
            if choosing.reason not in (None, *ENDED_BY_TIME):
                return choosing
            brake = choosing if choosing.reason is not None else brake
        runs = FixedRuns(
            spec=self.spec,
            resources=resources,
            records=Records(self.run_dir, FINALISTS),
            tracker=tracker,
            trainable=self.trainable,
            say=self.say,
            storage=state_storage(self.spec, self.run_dir),
            noun=NOUN,
            shared=SHARED,
            copying=copying,
        )
        after = Brake(brake.left, say=self.say)
        run_finalists(runs, records.trials(), session=session, limit=limit, brake=after)
        if closed_loop is not None:
            with stopped_by_signals(after):
                acts = trained_acts(closed_loop, runs.records.trials(), NOUN)
                let_act(acts, runs.records, tracker, self.say, after)
        return after if after.reason is not None else brake

    def _searcher(self, recorded: Sequence[TrialRecord]) -> RungSearch:
        spec = self.spec
        searcher = RungSearch(
            make_space(spec),
            metric=spec.objective.metric,
            mode=spec.objective.mode,
            rungs=spec.rungs,
            seed=spec.seed,
            warm_start=list(warm_starts(spec).values()),
            storage=f"sqlite:///{self.run_dir.absolute() / OPTUNA_FILE}",
            study_name=spec.study,
        )
        for trial in recorded:
            outcome = trial.outcome.state if trial.outcome else None
            searcher.restore_trial(trial.number, trial.params, trial.values(spec.objective.metric), outcome)
        return searcher

    def _scheduler(self, searcher: RungSearch, recorded: Sequence[TrialRecord]) -> RungScheduler:
        spec = self.spec
        scheduler = RungScheduler(
            metric=spec.objective.metric,
            mode=spec.objective.mode,
            rungs=spec.rungs,
            reduction_factor=spec.asha.reduction_factor,
            number=searcher.number,
            protected=range(len(spec.warm_start)),
        )
        metric = spec.objective.metric
        arrived = sorted(
            (result.time, trial.number, result.samples_seen, result.metrics[metric])
            for trial in recorded
            for result in trial.results
            if metric in result.metrics
        )
        scheduler.preload((number, samples, value) for _, number, samples, value in arrived)
        return scheduler

    def _open_tracker(self, records: Records, resume: bool) -> Tracker:
        spec = self.spec
        tracker = make_tracker(spec.tracking.uri, spec.experiment, self.run_dir, spec.tracking.enabled)
        tracker.start_study(self.run_dir, spec.to_dict(), self.yaml_text, self.dataset, resume)
        for trial in records.trials() if resume else ():
            tracker.recall_trial(trial.number, trial.name, trial)
        return tracker

    def _summary(self, records: Records, state: str, reason: str | None) -> Summary:
        spec, trials = self.spec, records.trials()
        return study_summary(
            spec,
            trials,
            Records(self.run_dir, FINALISTS).trials(),
            state=state,
            reason=reason,
            seconds=records.seconds_used(),
        )

    def _finish(self, records: Records, tracker: Tracker, brake: Brake) -> Summary:
        state = "complete" if brake.reason in (None, *ENDED_BY_TIME) else "interrupted"
        state = state if brake.reason in (None, *ENDED_BY_TIME, INTERRUPTED) else "failed"
        summary, artifacts = write_results(self._summary(records, state, brake.reason), self.run_dir, records)
        tracker.end_study(summary.to_dict(), artifacts)
        return summary


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
