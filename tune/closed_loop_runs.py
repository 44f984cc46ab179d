"""The finalists act: each of their trainings, once, when all are trained.

Its policy is exported for the length of the evaluation; what came of it is kept with its record
(``tune.closed_loop``), so that a study that is continued goes on with those that are missing.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from smolvla_core.errors import UserError
from tune.closed_loop import FOLDER, Achieved, achieved, evaluator_name
from tune.console import Say, counted
from tune.ray_session import OUT_OF_TIME, Brake
from tune.records import Records, TrialRecord
from tune.spec import ClosedLoop
from tune.tracking import Tracker

Evaluate = Callable[[Path, ClosedLoop, Path, Brake], None]
"""(policy's folder, what it acts in, folder for the results, ended by): writes results, or raises."""


class Ended(Exception):  # noqa: N818 - no error: the study was ended
    """The brake was pulled, or the time is up."""


def let_act(
    closed_loop: ClosedLoop,
    records: Records,
    tracker: Tracker,
    say: Say,
    brake: Brake,
    evaluate: Evaluate | None = None,
) -> None:
    """Evaluate those of the finalists' trainings that have not been, and tell the tracker.

    A training whose policy fails at it is a line, and the others go on.

    Args:
        closed_loop: what they act in.
        records: of the finalists.
        tracker: of the study.
        say: takes each line of progress.
        brake: ends it; what is missing is done when the study is continued.
        evaluate: to be given in tests.
    """
    waiting = [run for run in records.trials() if _is_complete(run) and not _is_done(run, closed_loop)]
    if not waiting or brake.reason is not None:
        return
    count = counted(len(closed_loop.numbers), "instance")
    say(f"Closed loop: {counted(len(waiting), 'training')} of the finalists in {closed_loop.env}, {count} each")
    for run in waiting:
        who = f"finalist {run.number} ({run.name})"
        try:
            if not _let_one_act(closed_loop, records, run, brake, evaluate or evaluate_policy):
                say(f"{who}: left no policy that could act")
                continue
        except Ended as ended:
            say(f"The closed loop was ended ({ended}); continue with --resume")
            return
        except (UserError, RuntimeError) as error:
            say(f"{who}: could not act: {(str(error).splitlines() or [''])[0]}")
            continue
        found = next(
            each for each in achieved(records.folder(run.number)) if each.evaluator == evaluator_name(closed_loop.env)
        )
        samples = max((result.samples_seen for result in run.results), default=0)
        tracker.log_result(f"finalist {run.number}", {"samples_seen": samples, **found.metrics()})
        score = next(iter(found.scores().items()))
        say(f"{who}: {score[0]} {100 * score[1].mean:.1f} % of {counted(len(found.rollouts), 'rollout')}")


def evaluate_policy(policy: Path, closed_loop: ClosedLoop, out: Path, brake: Brake) -> None:
    """Let an exported policy act, and write ``results.json``.

    Raises:
        UserError: the policy and the environment do not go together.
        Ended: the brake was pulled.
    """
    from smolvla_core.acting import device_of, load_actor
    from smolvla_core.closed_loop.policies import ActorPolicy
    from smolvla_core.closed_loop.results import document, write_results
    from smolvla_core.closed_loop.rollout import Rollout, run_episodes
    from smolvla_core.closed_loop.scores import summarise

    def notify(done: int, total: int) -> None:
        if brake.stop_all():
            raise Ended(brake.reason or OUT_OF_TIME)

    actor = load_actor(policy, device_of("auto"), closed_loop.n_action_steps, closed_loop.instruction)
    acting = ActorPolicy(actor)
    env = closed_loop.environment
    rollout = Rollout(closed_loop.at_once, closed_loop.jobs)
    episodes = run_episodes(acting, env, closed_loop.numbers, rollout, notify)
    asked = {**acting.describe(), "asked_n_action_steps": closed_loop.n_action_steps}
    write_results(out, document(env, asked, acting.seed, episodes, summarise(episodes)))


def _let_one_act(closed_loop: ClosedLoop, records: Records, run: TrialRecord, brake: Brake, evaluate: Evaluate) -> bool:
    from tune.report.results import write_policy

    if brake.stop_all():
        raise Ended(brake.reason or OUT_OF_TIME)
    with tempfile.TemporaryDirectory(prefix="acting-") as folder:
        policy = Path(folder) / "policy"
        if not write_policy(run, records, policy):
            return False
        evaluate(policy, closed_loop, records.folder(run.number) / FOLDER / evaluator_name(closed_loop.env), brake)
    return True


def _is_complete(run: TrialRecord) -> bool:
    return run.outcome is not None and run.outcome.state == "complete"


def _is_done(run: TrialRecord, closed_loop: ClosedLoop) -> bool:
    """Whether it has acted in this environment, on these instances and in this way."""
    found = next((each for each in run.achieved if _is_of(each, closed_loop)), None)
    if found is None:
        return False
    same_steps = found.settings["policy"].get("asked_n_action_steps") == closed_loop.n_action_steps
    same_instances = tuple(rollout.instance for rollout in found.rollouts) == closed_loop.numbers
    return bool(same_steps and same_instances and found.settings["env"] == asdict(closed_loop.environment))


def _is_of(found: Achieved, closed_loop: ClosedLoop) -> bool:
    return found.evaluator == evaluator_name(closed_loop.env)
