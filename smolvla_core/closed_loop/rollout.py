"""All episodes of an evaluation, in step: one forward of the policy for every environment that waits."""

import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smolvla_core.closed_loop.environment import AT_ONCE, EnvSpec
from smolvla_core.closed_loop.kept import Kept
from smolvla_core.closed_loop.policies import ChunkPolicy, Request
from smolvla_core.closed_loop.stage import Act, Begin, Episode, Stage, Turn
from smolvla_core.closed_loop.worker import StageProcess

Notify = Callable[[int, int], None]
"""Called with (episodes done, of how many)."""


@dataclass(frozen=True)
class Rollout:
    """How episodes are run; none of this changes what comes of them.

    Attributes:
        at_once: environments that run side by side.
        jobs: processes that step them; 1 steps them in this one.
        videos: instance -> the file that it is filmed to.
    """

    at_once: int = AT_ONCE
    jobs: int = 1
    videos: Mapping[int, Path] | None = None


def run_episodes(
    policy: ChunkPolicy,
    env: EnvSpec,
    instances: Sequence[int],
    rollout: Rollout,
    notify: Notify,
    kept: Kept | None = None,
) -> list[Episode]:
    """What comes of each instance, in their order; of those that are kept, what came of them. Others are kept too.

    One that is kept, and is to be filmed now, acts again.

    Raises:
        UserError: the environment cannot be made, or does not suit the policy.
        RuntimeError: an environment failed.
    """
    videos = dict(rollout.videos or {})
    unfilmed = {instance for instance, file in videos.items() if not file.is_file()}
    done = {number: episode for number, episode in (kept.episodes if kept else {}).items() if number not in unfilmed}
    waiting = deque(instance for instance in instances if instance not in done)
    live: dict[int, Request] = {}
    env = replace(env, pictures=policy.sees or bool(videos))
    slots = range(min(rollout.at_once, len(waiting)))
    notify(len(instances) - len(waiting), len(instances))
    with contextlib.closing(_Stages(env, min(rollout.jobs, len(slots)))) as stages:
        while waiting or live:
            free = [slot for slot in slots if slot not in live]
            for turn in stages.do([_begin(slot, waiting.popleft(), videos) for slot in free[: len(waiting)]]):
                live[turn.slot] = Request(turn.slot, stages.instance[turn.slot], 0, turn.live)
            requests = [live[slot] for slot in sorted(live)]
            chunks = policy.chunks(requests)
            acts = [Act(request.slot, chunk) for request, chunk in zip(requests, chunks, strict=True)]
            for turn in stages.do(acts):
                if turn.episode is None:
                    before = live[turn.slot]
                    live[turn.slot] = replace(before, chunk=before.chunk + 1, live=turn.live)
                    continue
                done[turn.episode.instance] = turn.episode
                if kept is not None:
                    kept.add(turn.episode)
                del live[turn.slot]
                notify(len(instances) - len(waiting) - len(live), len(instances))
    return [done[instance] for instance in instances]


def _begin(slot: int, instance: int, videos: Mapping[int, Path]) -> Begin:
    return Begin(slot, instance, videos.get(instance))


class _Stages:
    """One stage in this process, or several in their own; a slot is always of the same one."""

    def __init__(self, env: EnvSpec, jobs: int):
        self.instance: dict[int, int] = {}
        self._here = Stage(env) if jobs == 1 else None
        self._processes = [StageProcess(env) for _ in range(jobs)] if jobs > 1 else []

    def do(self, orders: Sequence[Begin | Act]) -> list[Turn]:
        """Have orders done, side by side where there are several processes."""
        self.instance |= {order.slot: order.instance for order in orders if isinstance(order, Begin)}
        if self._here is not None:
            return [self._here.do(order) for order in orders]
        count = len(self._processes)
        shares = [[order for order in orders if order.slot % count == number] for number in range(count)]
        asked = [(process, share) for process, share in zip(self._processes, shares, strict=True) if share]
        for process, share in asked:
            process.ask(share)
        return [turn for process, _ in asked for turn in process.answer()]

    def close(self) -> None:
        if self._here is not None:
            self._here.close()
        for process in self._processes:
            process.close()
