"""Trainings act: each of the finalists', once, when all are trained; and trials that are to be chosen by it.

A policy is exported for the length of the evaluation; what came of it is kept with its record
(``tune.closed_loop``), so that a study that is continued goes on with those that are missing.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smolvla_core.errors import DataError, UserError, disk_is_full
from tune.closed_loop import ASKED, FOLDER, TRIED, Achieved, achieved, evaluator_name, make_room
from tune.closed_loop_spec import ClosedLoop
from tune.console import Say, counted
from tune.ray_session import ENDED_BY_TIME, OUT_OF_TIME, Brake
from tune.records import Records, TrialRecord
from tune.tracking import Tracker

Evaluate = Callable[[Path, ClosedLoop, Path, Brake], None]
"""(policy's folder, what it acts in, folder for the results, ended by): writes results, or raises."""
_CALLED = {FOLDER: ("training", "", "each"), TRIED: ("trial", " of the top rung", "each time")}
"""What is kept in a folder of a record, in the line that announces it."""


class Ended(Exception):  # noqa: N818 - no error: the study was ended
    """The brake was pulled, or the time is up."""


@dataclass(frozen=True)
class Act:
    """One training that is to act.

    Attributes:
        run: its record.
        who: it in a line of progress.
        number: its MLflow run.
        closed_loop: what it acts in.
        kept: the folder of its record that keeps what came of it, and ``name``, under which name there.
    """

    run: TrialRecord
    who: str
    number: int | str
    closed_loop: ClosedLoop
    kept: str
    name: str

    @property
    def found(self) -> Achieved | None:
        """What came of it; None where it has not acted in this environment, on these instances and in this way."""
        of_run = self.run.achieved if self.kept == FOLDER else self.run.tried
        found = next((each for each in of_run if each.evaluator == self.name), None)
        if found is None:
            return None
        asked, policy = _asked(self.closed_loop), found.settings["policy"]
        same_way = found.is_own and all(policy[key] == value for key, value in asked.items())
        same_instances = tuple(rollout.instance for rollout in found.rollouts) == self.closed_loop.numbers
        same_env = found.settings["env"] == asdict(self.closed_loop.environment)
        return found if same_way and same_instances and same_env else None

    @property
    def is_done(self) -> bool:
        """Whether it has acted so."""
        return self.found is not None


def trained_acts(closed_loop: ClosedLoop, trainings: Sequence[TrialRecord], noun: str) -> list[Act]:
    """What trainings of fixed configurations are to do, each that was trained to its end; ``noun`` is one of them."""
    name = evaluator_name(closed_loop.env)
    return [
        Act(run, f"{noun} {run.number} ({run.name})", f"{noun} {run.number}", closed_loop, FOLDER, name)
        for run in trainings
        if is_complete(run)
    ]


def let_act(
    acts: Sequence[Act], records: Records, tracker: Tracker, say: Say, brake: Brake, evaluate: Evaluate | None = None
) -> None:
    """Let those act that have not, one after the other, and tell the tracker.

    It is told of those too that acted in an earlier session, whose tracker may have died before it was.
    A training whose policy fails at it is a line, and the others go on; so it is with whatever an environment of
    the user's own raises.

    Args:
        acts: all of one kind.
        records: of their trainings.
        tracker: of the study.
        say: takes each line of progress.
        brake: ends it; what is missing is done when the study is continued.
        evaluate: to be given in tests.
    """
    for act in acts:
        if act.found is not None:
            _tell(tracker, act, act.found)
    waiting = [act for act in acts if not act.is_done]
    if not waiting or brake.reason is not None:
        return
    noun, group, each_time = _CALLED[waiting[0].kept]
    closed_loop, runs = waiting[0].closed_loop, counted(len({act.run.number for act in waiting}), noun)
    count = counted(len(closed_loop.numbers), "instance")
    say(f"Closed loop: {runs}{group} in {closed_loop.env}, {count} {each_time}")
    for act in waiting:
        run, who = act.run, act.who
        try:
            if not _let_one_act(act, records, brake, evaluate or evaluate_policy):
                say(f"{who}: left no policy that could act")
                continue
        except Ended as ended:
            more = "give more budget.hours and " if str(ended) in ENDED_BY_TIME else ""
            say(f"The closed loop was ended ({ended}); {more}continue with --resume")
            return
        except Exception as error:
            if disk_is_full(error):
                raise
            say(f"{who}: could not act: {_reason(error)}")
            continue
        found = next(each for each in achieved(records.folder(run.number), act.kept) if each.evaluator == act.name)
        _tell(tracker, act, found)
        score = next(iter(found.scores().items()))
        say(f"{who}: {score[0]} {100 * score[1].mean:.1f} % of {counted(len(found.rollouts), 'rollout')}")


def evaluate_policy(policy: Path, closed_loop: ClosedLoop, out: Path, brake: Brake) -> None:
    """Let an exported policy act, and write ``results.json``.

    Raises:
        UserError: the policy and the environment do not go together, or a score is no number.
        Ended: the brake was pulled.
    """
    from smolvla_core.acting import device_of, load_actor
    from smolvla_core.closed_loop.kept import Kept, weights_digest
    from smolvla_core.closed_loop.policies import ActorPolicy
    from smolvla_core.closed_loop.results import document, write_results
    from smolvla_core.closed_loop.rollout import Rollout, run_episodes
    from smolvla_core.closed_loop.scores import summarise

    def notify(done: int, total: int) -> None:
        if brake.stop_all():
            raise Ended(brake.reason or OUT_OF_TIME)

    env = closed_loop.environment
    actor = load_actor(policy, device_of("auto"), closed_loop.n_action_steps, closed_loop.instruction, env.control_hz())
    acting = ActorPolicy(actor)
    described = {**acting.describe(), **_asked(closed_loop)}
    decisive = {"env": asdict(env), "policy": {**described, "policy": weights_digest(policy)}, "seed": acting.seed}
    kept = Kept(out, decisive, replace=True)
    rollout = Rollout(closed_loop.at_once, closed_loop.jobs)
    episodes = run_episodes(acting, env, closed_loop.numbers, rollout, notify, kept)
    odd = [each for each in episodes if not (math.isfinite(each.eggs_placed) and math.isfinite(each.q))]
    if odd:
        kept.clear()
        raise DataError(
            f"{env.name}: instance {odd[0].instance} ended with eggs_placed {odd[0].eggs_placed:g} and q {odd[0].q:g}; "
            "both must be finite, correct the environment"
        )
    write_results(out, document(env, described, acting.seed, episodes, summarise(episodes)))
    kept.clear()


def _asked(closed_loop: ClosedLoop) -> dict[str, Any]:
    """What the policy is asked for beyond its own ways, as it is kept with the results."""
    return dict(zip(ASKED, (closed_loop.n_action_steps, closed_loop.instruction), strict=True))


def is_complete(run: TrialRecord) -> bool:
    """Whether it was trained to its end."""
    return run.outcome is not None and run.outcome.state == "complete"


def _tell(tracker: Tracker, act: Act, found: Achieved) -> None:
    samples = max((result.samples_seen for result in act.run.results), default=0)
    tracker.log_result(act.number, {"samples_seen": samples, **found.metrics(act.kept)})


def _reason(error: Exception) -> str:
    """One line; a mistake of the user says all in its words."""
    words = (str(error).splitlines() or [""])[0]
    return words if isinstance(error, UserError) else f"{type(error).__name__}: {words}"


def _let_one_act(act: Act, records: Records, brake: Brake, evaluate: Evaluate) -> bool:
    from tune.report.results import write_policy

    if brake.stop_all():
        raise Ended(brake.reason or OUT_OF_TIME)
    with tempfile.TemporaryDirectory(prefix="acting-") as folder:
        policy = Path(folder) / "policy"
        try:
            if not write_policy(act.run, records, policy):
                return False
            results = records.folder(act.run.number) / act.kept / act.name
            make_room(results)
            evaluate(policy, act.closed_loop, results, brake)
        finally:
            records.note_act(act.run.number)
    return True
