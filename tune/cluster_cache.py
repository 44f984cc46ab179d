"""Fill a search's cache on all machines of a Ray cluster: ``python -m tune.cluster_cache SEARCH.yaml``.

Ray Data spreads the frames over workers, each with a policy of its own; this process writes what they
compute to the cache. Where trials run on several machines, ``runtime.cache`` names a folder that all of
them see. What is stored already is left out, so that an interrupted build goes on where it stopped.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import ray

from smolvla_core.command import FAILED, OK, Parser, answer, read_count
from smolvla_core.config import TrialConfig
from smolvla_core.errors import ConfigError
from tune.ray_session import ray_session
from tune.space import base_values, to_trial_config
from tune.spec import SearchSpec, load_spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from smolvla_core.cache.build import Built
    from smolvla_core.cache.store import Kind


class Worker:
    """Computes jobs of :func:`smolvla_core.cache.build.jobs_of`; stores nothing.

    Args:
        values: the trial's, nested.
    """

    def __init__(self, values: Mapping[str, Any]):
        from smolvla_core.trial import prepare

        # its stores only say what is computed here, and on which kind of device
        self.folder = tempfile.TemporaryDirectory(prefix="cache-")
        self.trial = prepare(TrialConfig.from_dict(values).with_values({"runtime.cache": self.folder.name}))

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The job of a row, with its values as bytes."""
        import numpy as np
        import torch

        from smolvla_core.cache.build import part_of

        job = _job(row)
        part = part_of(self.trial, job)
        values = part.compute(np.array(job.places, dtype=np.int64)).to("cpu", part.store.dtype).contiguous()
        return {**row, "values": values.reshape(-1).view(torch.uint8).numpy().tobytes()}

    def kinds(self, jobs: list[str]) -> "list[Kind]":
        """What the stores that some jobs fill hold."""
        from smolvla_core.cache.build import part_of
        from smolvla_core.cache.store import kind_of

        return [kind_of(part_of(self.trial, _job({"job": job})).store.folder) for job in jobs]


def fill(config: TrialConfig, workers: int | None = None) -> "Built":
    """Fill a trial's cache by all machines of the Ray session that this is called in.

    Args:
        config: the trial.
        workers: None: one for each GPU, or for each machine where there is none.

    Raises:
        ConfigError: the cache is off.
    """
    import numpy as np
    import torch

    from smolvla_core.cache.build import Built, jobs_of
    from smolvla_core.cache.home import home_of

    home = home_of(config)
    if home is None:
        raise ConfigError("runtime.cache: is off; set it to auto, or to a folder that all machines see")
    total = ray.cluster_resources()
    gpus = int(total.get("GPU", 0))
    count = workers or gpus or len([node for node in ray.nodes() if node["Alive"]])
    cpus = max(1, int(total["CPU"]) // count)
    resources = {"num_gpus": 1} if gpus else {"num_cpus": cpus}
    values = config.with_values({} if gpus else {"runtime.threads": config.runtime.threads or cpus}).to_dict()

    jobs = jobs_of(config)
    first = {(job.dataset, job.camera, job.tier): job for job in reversed(jobs)}
    scout = ray.remote(Worker).options(**resources).remote(values)
    kinds = ray.get(scout.kinds.remote([_text(job) for job in first.values()]))
    ray.kill(scout)
    stores = {
        key: home.open(kind.identity, kind.rows, kind.shape, kind.dtype) for key, kind in zip(first, kinds, strict=True)
    }
    missing = []
    for job in jobs:
        places = np.array(job.places, dtype=np.int64)
        left = places[~stores[job.dataset, job.camera, job.tier].has(places)]
        if len(left):
            missing.append({"job": _text(job, left.tolist())})
    if not missing:
        return Built(0, 0)
    rows = ray.data.from_items(missing, override_num_blocks=min(len(missing), 4 * count))
    results = rows.map(Worker, fn_constructor_args=(values,), concurrency=min(count, len(missing)), **resources)
    computed = left_out = 0
    for row in results.iter_rows():
        job = _job(row)
        store = stores[job.dataset, job.camera, job.tier]
        flat = torch.frombuffer(bytearray(row["values"]), dtype=store.dtype)
        known = dict(zip(job.places, flat.view(len(job.places), *store.shape), strict=True))
        places = np.array(job.places, dtype=np.int64)
        unstored = store.fill(places, partial(_looked_up, known), len(places))
        computed, left_out = computed + len(places), left_out + len(unstored)
    return Built(computed, left_out)


def shared_trial(spec: SearchSpec) -> TrialConfig:
    """What all trials of a search share, with as many frames as have room.

    Raises:
        UserError: the data or the policy cannot be opened.
    """
    from smolvla_core.cache.plan import plan_cache
    from smolvla_core.trial import resolve

    config = to_trial_config(spec, {key: base_values(spec)[key] for key in spec.search})
    plan = plan_cache(config, resolve(config))
    if plan is None:
        return config
    print(plan.text(), flush=True)
    return config if plan.fit is None else config.with_values({"data.frames": plan.fit})


def main(arguments: list[str] | None = None) -> int:
    """The command line; see ``--help``."""
    parser = Parser(prog="python -m tune.cluster_cache", description=__doc__.splitlines()[0])
    parser.add_argument("yaml", metavar="SEARCH.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. runtime.cache=/mnt/cache")
    parser.add_argument("--workers", type=read_count, help="default: one for each GPU, or for each machine without any")
    options = parser.parse_args(arguments)
    return answer(lambda: _main(options), "interrupted; the same command goes on where it stopped")


def _main(options: argparse.Namespace) -> int:
    spec, _ = load_spec(options.yaml, options.set)
    config = shared_trial(spec)
    started = time.monotonic()
    with ray_session():
        built = fill(config, options.workers)
    print(f"{built.computed:,} computed in {time.monotonic() - started:.1f} s; the rest was there")
    if built.left_out:
        print(f"{built.left_out:,} of them were not kept: no room; raise runtime.cache_gb, or free disk space")
    return FAILED if built.left_out else OK


def _looked_up(known: "Mapping[int, Tensor]", places: "NDArray[np.int64]") -> "Tensor":
    import torch

    return torch.stack([known[int(place)] for place in places])


def _text(job: Any, places: list[int] | None = None) -> str:
    return json.dumps({**asdict(job), "places": job.places if places is None else places})


def _job(row: Mapping[str, Any]) -> Any:
    from smolvla_core.cache.build import Job

    values = json.loads(row["job"])
    return Job(**{**values, "places": tuple(values["places"])})


if __name__ == "__main__":
    sys.exit(main())
