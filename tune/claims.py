"""Put the recipe's claims to the test: ``python -m tune.claims SEARCH.yaml``.

Trains the baseline, alpha = 1, batch 16 and chunk 30, each alone and together, to the full budget with
the same seeds, and says of each claim whether it is supported, not supported or undecided. Exit code 0
when all trainings are done, 2 on bad input, 1 otherwise.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray.tune import Callback

from smolvla_core.command import FAILED, OK, Parser, answer, python_command, read_count
from smolvla_core.errors import ConfigError
from tune import driver
from tune.capacity import concurrency
from tune.claim_verdicts import evaluated, table_lines, variants
from tune.closed_loop import evaluator_name
from tune.closed_loop_checks import refuse_environment, refuse_unsuited
from tune.closed_loop_runs import Evaluate, let_act, trained_acts
from tune.closed_loop_spec import ClosedLoop
from tune.console import Say, counted, say_line
from tune.fitted_frames import fitted, largest
from tune.fixed_runs import SEED, FixedRuns, Run
from tune.mirror import mirrored
from tune.nodes import check_nodes
from tune.packing import resources_of
from tune.preflight import Facts
from tune.ray_session import Brake, ray_session, stopped_by_signals
from tune.records import Records, TrialRecord
from tune.resume import state_storage
from tune.run_folder import (
    CLAIMS_PLAN,
    RESOLVED,
    new_folder,
    opened,
    refuse_other_data,
    stored_dataset,
    stored_spec,
    stored_yaml,
    taken,
    with_password,
    write_specification,
    write_whole,
)
from tune.space import base_values
from tune.spec import Resources, SearchSpec, load_spec
from tune.tracking import NullTracker, Tracker, make_tracker, viewing_command, viewing_page
from tune.trainable import Trainable, smolvla_trainable

NOUN = "training"
SUFFIX = "-claims"
"""Of the study's name, so that its folder is no study's that a search would resume."""
SEEDS, POINTS = 3, 10
"""Trainings of each variant, and evaluations of each training, where the command line does not say."""
MAY_BE_SET = ("budget", "resources", "max_concurrent")
"""Sections that may change when it is resumed."""
CLAIMS_FILE, TABLE_FILE = "claims.json", "claims.md"
_CHECKING = "Checking the data and every variant ..."


@dataclass(frozen=True)
class Trainings:
    """The trainings that the claims are judged by.

    Attributes:
        spec: of the search whose data, policy and budget are taken.
        folder: of the results.
        seeds: trainings of each variant.
        points: evaluations of each training, evenly spaced, the last at its end.
        closed_loop: what they act in once they are trained, if they do.
        yaml_text: the YAML as the user wrote it, for the tracker; dataset: its fingerprint.
        trainable: runs one; evaluate: lets one act, to be given in tests; say: takes each line of progress.
    """

    spec: SearchSpec
    folder: Path
    seeds: int
    points: int
    closed_loop: ClosedLoop | None = None
    yaml_text: str = ""
    dataset: Mapping[str, Any] | None = None
    trainable: Trainable = smolvla_trainable
    evaluate: Evaluate | None = None
    say: Say = say_line

    def runs(self) -> list[Run]:
        """Every variant with its first seed, then with its second."""
        first = int(base_values(self.spec)[SEED])
        return [
            Run(name, {**values, SEED: first + number})
            for number in range(self.seeds)
            for name, values in variants(self.spec).items()
        ]

    def fixed(
        self, resources: Resources, tracker: Tracker | None = None, copying: Sequence[Callback] = ()
    ) -> FixedRuns:
        """How they are run, each with these resources."""
        samples = self.spec.samples
        at = sorted({max(1, round(samples * point / self.points)) for point in range(1, self.points)})
        return FixedRuns(
            spec=self.spec,
            resources=resources,
            records=Records(self.folder),
            tracker=tracker or NullTracker(),
            trainable=self.trainable,
            say=self.say,
            storage=state_storage(self.spec, self.folder),
            noun=NOUN,
            shared={"eval.at": at},
            copying=copying,
        )

    def run(self, resume: bool = False) -> tuple[list[dict[str, Any]], bool]:
        """Train what is missing, and judge; whether all is done.

        Args:
            resume: continue what the folder holds.
        """
        if resume:  # another budget or other resources are those of the next resume too
            write_specification(self.folder, self.spec, self.yaml_text, self.dataset)
        records, hours = Records(self.folder), self.spec.budget.hours
        with ray_session():
            check_nodes(self.spec, self.folder)
            with resources_of(self.spec) as (resources, _):
                limit = concurrency(resources, self.spec.max_concurrent)
                driver.hold(self.folder)
                try:
                    with mirrored(self.spec, self.folder) as copying:
                        brake = Brake(None if hours is None else hours * 3600 - records.seconds_used())
                        session = f"session_{records.start_session():03d}"
                        tracker = self._open_tracker(resume)
                        try:
                            fixed = self.fixed(resources, tracker, copying)
                            trained = fixed.run(self.runs(), session=session, limit=limit, brake=brake)
                            done = self._acted(trained, records, tracker, brake)
                        except BaseException as error:
                            tracker.end_study({"state": "failed", "reason": type(error).__name__})
                            raise
                        rows, whole = self._judged(done)
                        kept = [self.folder / CLAIMS_FILE, self.folder / TABLE_FILE]
                        tracker.end_study(self._told(rows, whole, brake), kept)
                finally:
                    driver.release(self.folder)
        if brake.reason is not None:
            self.say(f"Ended early: {brake.reason}")
        return rows, whole

    def _acted(
        self, done: Sequence[TrialRecord], records: Records, tracker: Tracker, brake: Brake
    ) -> Sequence[TrialRecord]:
        """The trainings' records, with what they achieve where they are to act."""
        if self.closed_loop is None or brake.reason is not None:
            return done
        with stopped_by_signals(brake):
            let_act(trained_acts(self.closed_loop, done, NOUN), records, tracker, self.say, brake, self.evaluate)
        numbers = {run.number for run in done}
        return [run for run in records.trials() if run.number in numbers]

    def _judged(self, done: Sequence[TrialRecord]) -> tuple[list[dict[str, Any]], bool]:
        rows = evaluated(self.spec, done, evaluator_name(self.closed_loop.env) if self.closed_loop else None)
        whole = len(done) == len(self.runs()) and all(r.outcome and r.outcome.state == "complete" for r in done)
        if self.closed_loop is not None:
            whole = whole and all(act.is_done for act in trained_acts(self.closed_loop, done, NOUN))
        document = {"rows": rows, "seeds": self.seeds, "samples": self.spec.samples}
        write_whole(self.folder / CLAIMS_FILE, json.dumps(document, indent=2) + "\n")
        write_whole(self.folder / TABLE_FILE, "\n".join(table_lines(rows)) + "\n")
        return rows, whole

    def _open_tracker(self, resume: bool) -> Tracker:
        spec = self.spec
        tracker = make_tracker(spec.tracking.uri, spec.experiment, self.folder, spec.tracking.enabled)
        tracker.start_study(self.folder, spec.to_dict(), self.yaml_text, self.dataset, resume)
        return tracker

    def _told(self, rows: Sequence[Mapping[str, Any]], whole: bool, brake: Brake) -> dict[str, Any]:
        state = "complete" if whole else "interrupted" if brake.reason is not None else "failed"
        return {
            "study": self.spec.study,
            "state": state,
            "reason": brake.reason,
            "note": "\n".join(table_lines(rows)),
        }


def main(arguments: list[str] | None = None) -> int:
    """The command line; see ``--help``."""
    options = _parse(arguments)
    return answer(lambda: _command(options))


def _command(options: argparse.Namespace) -> int:
    resume = bool(options.resume)
    trainings = _resumed(opened(options.resume), options.set) if resume else _new(options)
    if resume:
        print(_CHECKING, flush=True)
        refuse_other_data(trainings.folder, _checked(trainings).dataset)
    runs = trainings.runs()
    print(
        f"{counted(len(runs), 'training')}: {', '.join(variants(trainings.spec))}; {counted(trainings.seeds, 'seed')} "
        f"each, {trainings.spec.samples:,} samples, {trainings.points} evaluations\nResults    {trainings.folder}",
        flush=True,
    )
    if options.dry_run:
        return OK
    rows, whole = trainings.run(resume)
    print("\n" + "\n".join(table_lines(rows)), flush=True)
    where = trainings.spec.tracking.uri, trainings.folder, trainings.spec.tracking.enabled
    for label, place in (("MLflow     ", viewing_command(*where)), ("then open  ", viewing_page(*where))):
        if place:
            print(f"{label}{place}")
    if not whole:
        again = f"{python_command()} -m tune.claims --resume {shlex.quote(str(trainings.folder))}"
        print(f"Not all trainings are complete; go on with  {again}")
    return OK if whole else FAILED


def _new(options: argparse.Namespace) -> Trainings:
    if options.yaml is None:
        raise ConfigError("give a search's YAML, e.g. search_spaces/easter_eggs.yaml")
    found, source = load_spec(options.yaml, options.set)
    spec = SearchSpec.from_dict(
        found.to_dict() | {"study": f"{found.study}{SUFFIX}", "finalists": None, "closed_loop": None}
    )
    acts_in = found.closed_loop.model_copy(update={"choose": None}) if found.closed_loop else None
    trainings = Trainings(spec, new_folder(spec), options.seeds or SEEDS, options.points or POINTS, acts_in)
    print(_CHECKING, flush=True)
    facts = _checked(trainings)
    spec = fitted(spec, facts)
    print(f"Cache      {facts.cache.text() if facts.cache else 'off'}", flush=True)
    trainings = replace(trainings, spec=spec, yaml_text=source.text, dataset=facts.dataset)
    if options.dry_run:
        return trainings
    with taken(trainings.folder, spec) as folder:
        write_specification(folder, spec, source.text, facts.dataset)
        plan: dict[str, Any] = {"seeds": trainings.seeds, "points": trainings.points}
        plan |= {"closed_loop": acts_in.model_dump() if acts_in else None}
        write_whole(folder / CLAIMS_PLAN, json.dumps(plan))
    return replace(trainings, folder=folder)


def _resumed(folder: Path, changes: Sequence[str] = ()) -> Trainings:
    plan = folder / CLAIMS_PLAN
    if not plan.is_file():
        raise ConfigError(f"--resume: {folder} holds no {CLAIMS_PLAN}; give the folder that an earlier call has named")
    for change in changes:
        if re.split(r"[.=]", change)[0] not in MAY_BE_SET:
            raise ConfigError(
                f"--resume: --set {change} would train the rest otherwise than what is there; only "
                f"{', '.join(MAY_BE_SET)} may be set, or start anew"
            )
    spec = with_password(load_spec(folder / RESOLVED, changes)[0] if changes else stored_spec(folder), folder)
    values = json.loads(plan.read_text(encoding="utf-8"))
    acts_in = ClosedLoop.model_validate(values["closed_loop"]) if values.get("closed_loop") else None
    return Trainings(
        spec,
        folder.absolute(),
        values["seeds"],
        values["points"],
        acts_in,
        yaml_text=stored_yaml(folder),
        dataset=stored_dataset(folder),
    )


def _checked(trainings: Trainings) -> Facts:
    """Resolve every variant against the data.

    Raises:
        UserError: at the first mistake.
    """
    from smolvla_core.cache.plan import plan_cache
    from smolvla_core.data.dataset import fingerprint
    from smolvla_core.trial import resolve
    from tune.spec_checks import check_data

    if trainings.closed_loop is not None:
        refuse_environment(trainings.closed_loop)
    check_data(trainings.spec)
    fixed = trainings.fixed(trainings.spec.resources)
    configs = [fixed.config(run.params) for run in trainings.runs()[: len(variants(trainings.spec))]]
    inputs = [resolve(config) for config in configs]
    if trainings.closed_loop is not None:
        refuse_unsuited(trainings.closed_loop, inputs[0].interface, configs)
    caches = [plan_cache(config, found) for config, found in zip(configs, inputs, strict=True)]
    return Facts(fingerprint(configs[0].data), {}, largest(caches))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tune.claims", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("yaml", nargs="?", metavar="SEARCH.yaml", help="whose data, policy and budget are taken")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for tune.run")
    parser.add_argument("--seeds", type=read_count, help=f"trainings of each variant (default: {SEEDS})")
    parser.add_argument("--points", type=read_count, help=f"evaluations of each training (default: {POINTS})")
    parser.add_argument("--dry-run", action="store_true", help="check everything and say what will be done")
    parser.add_argument("--resume", metavar="RUN", help="go on in the folder RUN")
    options = parser.parse_args(arguments)
    if options.resume and (options.yaml or options.seeds or options.points):
        parser.error("--resume goes on with what was begun; leave SEARCH.yaml, --seeds and --points out")
    return options


if __name__ == "__main__":
    sys.exit(main())
