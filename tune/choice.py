"""The closed loop as the search's objective at its top rung (``closed_loop.choose``).

Every trial that was trained to the end acts on instances of their own, with each number of actions of a
chunk that is to be tried: only acting can see what that does. What they achieve ranks them
(``tune.summary.ranked``), the best number is part of what a finalist is, and between the finalists, who
act on other instances, the eggs that they place decide as well.

    trials/007/tried/5/results.json    with 5 actions of each chunk; ``own`` where none is given
    trials/007/tried_before/           what was asked for before ``choose`` was changed
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune.acted import WORDS, gain_over, points, trial_name
from tune.closed_loop import TRIED, best_try, pooled
from tune.closed_loop_runs import Act, is_complete
from tune.closed_loop_spec import Choice, ClosedLoop
from tune.console import counted
from tune.intervals import Interval
from tune.records import Records, TrialRecord

STEPS = "policy.n_action_steps"
ASIDE = "tried_before"
_OWN = "own"


@dataclass(frozen=True)
class ByActing:
    """What acting says of the finalists.

    Attributes:
        winner: who achieved most.
        verdict: a sentence on it.
        score: what was achieved, in words.
        gain: the difference to the baseline's; None where the winner is the baseline, or there is none.
    """

    winner: str
    verdict: str
    score: str
    gain: Interval | None = None


def trials_acts(closed_loop: ClosedLoop, trials: Sequence[TrialRecord]) -> list[Act]:
    """What the search's trials are to do, each that was trained to its end; nothing where acting does not choose."""
    choose = closed_loop.choose
    if choose is None:
        return []
    return [
        Act(trial, _who(trial, steps), trial.number, _trying(closed_loop, choose, steps), TRIED, str(steps or _OWN))
        for trial in trials
        if is_complete(trial)
        for steps in _steps(choose, trial)
    ]


def put_aside(closed_loop: ClosedLoop | None, records: Records) -> None:
    """Move what trials achieved in ways that are not asked for out of what ranks them; nothing is deleted.

    So it is where ``choose`` was changed before a study was resumed: other instances, or none at all.
    """
    trials = records.trials()
    asked = trials_acts(closed_loop, trials) if closed_loop is not None else []
    current = {(act.run.number, act.name) for act in asked if act.is_done}
    for trial in trials:
        for one in trial.tried:
            if (trial.number, one.evaluator) not in current:
                aside = records.folder(trial.number) / ASIDE / f"{one.evaluator}-{one.time:.0f}"
                aside.parent.mkdir(exist_ok=True)
                one.files[0].parent.rename(aside)


def chosen_params(trial: TrialRecord) -> Mapping[str, Any]:
    """A trial's parameters, with the actions of a chunk that it is ranked by, where those are not its own."""
    if not trial.tried or (best := best_try(trial.tried)).evaluator == _OWN:
        return trial.params
    return {**trial.params, STEPS: best.n_action_steps}


def winner_by_acting(
    evaluator: str, seeds: Mapping[str, Sequence[TrialRecord]], baseline: str | None
) -> ByActing | None:
    """Which finalist places most; None where not all have acted on the same instances.

    Args:
        evaluator: whose results decide.
        seeds: the trainings of each finalist.
        baseline: its name.
    """
    runs = {name: [[a for a in run.achieved if a.evaluator == evaluator] for run in own] for name, own in seeds.items()}
    achieved = {name: [one for acts in own for one in acts] for name, own in runs.items()}
    asked = {tuple(r.instance for r in one.rollouts) for own in achieved.values() for one in own}
    if len(asked) != 1 or not all(acts for own in runs.values() for acts in own):
        return None
    scores = {name: pooled(own) for name, own in achieved.items()}
    winner = max(scores, key=lambda name: tuple(score.mean for score in scores[name].values()))
    first, best = next(iter(scores[winner].items()))
    where = f"{counted(len(asked.pop()), 'instance')}, over {counted(len(achieved[winner]), 'training seed')}"
    said = f"{winner} has the most {WORDS[first]} on {where}: {100 * best.mean:.1f} %"
    if baseline not in achieved:
        return ByActing(winner, f"{said}; there is no baseline to measure a gain against.", WORDS[first])
    if winner == baseline:
        return ByActing(winner, f"{said}; it is the baseline: nothing better was found.", WORDS[first])
    gain = gain_over(achieved[winner], achieved[baseline])
    if gain is None:
        return ByActing(winner, f"{said}.", WORDS[first])
    noise = "" if gain.sign > 0 else ", which may be chance"
    return ByActing(winner, f"{said}, {points(gain.to_dict())} over {baseline}{noise}.", WORDS[first], gain)


def _who(trial: TrialRecord, steps: int | None) -> str:
    return trial_name(trial) + (f", {counted(steps, 'action')} of a chunk" if steps else "")


def _trying(closed_loop: ClosedLoop, choose: Choice, steps: int | None) -> ClosedLoop:
    asked = closed_loop.n_action_steps if steps is None else steps
    return closed_loop.model_copy(update={"instances": choose.instances, "n_action_steps": asked, "choose": None})


def _steps(choose: Choice, trial: TrialRecord) -> list[int | None]:
    """Those to be tried that the trial's chunk has."""
    chunk = int(trial.config["policy"]["chunk_size"])
    return [steps for steps in choose.n_action_steps if steps <= chunk] or [None]
