"""What every machine of a Ray cluster must have before a search starts: the same code, the data, the storage.

A trial that finds another dataset, or other code, on its machine would be compared with the others all the same.
Machines that an autoscaler adds later are not looked at; a trial that lacks something there fails with its reason.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, NodeDiedError, RayError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from smolvla_core.errors import ConfigError
from tune.remote import Folder
from tune.spec import PROJECT, SearchSpec

PATIENCE_S = 180.0
"""For a machine to answer; a busy one takes seconds to start a process."""
_CODE = ("smolvla_core", "tune")


@dataclass(frozen=True)
class Sight:
    """What a machine sees.

    Attributes:
        code: digest of this package.
        data: digest of each dataset's metadata; None where the folder is not there.
        storage: why the storage cannot be used; None where it can.
    """

    code: str
    data: tuple[str | None, ...]
    storage: str | None


def check_nodes(spec: SearchSpec, run_dir: Path) -> None:
    """Look at every machine of the Ray session that this is called in; nothing to do where there is one.

    Raises:
        ConfigError: a machine has other code or data, or cannot use the storage; one line says which and what to do.
    """
    nodes = _alive()
    if len(nodes) < 2:
        return
    roots = [str(source["root"]) for source in spec.trial["data"]["train"] if source.get("root")]
    marker = run_dir.parent / f".seen-{uuid.uuid4().hex}"
    place = spec.storage if spec.is_remote else str(marker)
    if not spec.is_remote:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    try:
        seen = _seen(nodes, roots, place)
    finally:
        marker.unlink(missing_ok=True)
    here = look(roots, place)
    for address, there in seen:
        compare(address, there, here, roots, spec.storage)


def look(roots: Sequence[str], storage: str) -> Sight:
    """What this machine sees.

    Args:
        roots: folders of datasets.
        storage: an address, or a file in the storage.
    """
    return Sight(_digest_of_code(), tuple(_digest_of_data(Path(root)) for root in roots), _why_not(storage))


def _alive() -> dict[str, str]:
    """Ray's id of each machine -> its address."""
    return {node["NodeID"]: str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]}


def _seen(nodes: Mapping[str, str], roots: Sequence[str], storage: str) -> list[tuple[str, Sight]]:
    task: Any = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = []
    for node, address in nodes.items():
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        asked.append((node, address, task.options(scheduling_strategy=there).remote(roots, storage)))
    seen = []
    for node, address, answer in asked:
        try:
            seen.append((address, ray.get(answer, timeout=PATIENCE_S)))
        except GetTimeoutError:
            raise ConfigError(
                f"the machine {address} of the Ray cluster has not answered for {PATIENCE_S:.0f} s; take it out of "
                "the cluster, or try again"
            ) from None
        except RayError as error:
            # a spot machine that was taken away meanwhile: no trial will run there
            if isinstance(error, NodeDiedError | TaskUnschedulableError) or node not in _alive():
                continue
            missing = "No module named" in str(error)
            reason = "lacks this package" if missing else f"failed: {_last_line(error)}"
            raise ConfigError(
                f"the machine {address} of the Ray cluster {reason}; install the package there as on this one, e.g. "
                "with `ray up` (docs/cluster.md)"
            ) from None
    return seen


def compare(address: str, there: Sight, here: Sight, roots: Sequence[str], storage: str) -> None:
    """Refuse a machine that sees other code or data than this one, or cannot use the storage.

    Args:
        address: of the machine.
        there: what it sees.
        here: what this one sees.
        roots: folders of the datasets.
        storage: as the search gives it.

    Raises:
        ConfigError: one line says what differs and what to do.
    """
    if there.code != here.code:
        raise ConfigError(
            f"the machine {address} of the Ray cluster has another version of this package's code; copy this one "
            "there, e.g. with `ray up`, or submit with `ray job submit --working-dir .`"
        )
    for number, (root, theirs, ours) in enumerate(zip(roots, there.data, here.data, strict=True)):
        if theirs is None and ours is not None:
            raise ConfigError(
                f"data.train.{number}.root: {root}: no such folder on {address}; copy the dataset there, to the same "
                "path on every machine, or give a folder that all of them see"
            )
        if theirs != ours:
            raise ConfigError(
                f"data.train.{number}.root: {root} on {address} is another dataset than here, so that trials could not "
                "be compared; copy this machine's there"
            )
    if there.storage is not None:
        raise ConfigError(
            f"storage: {address} cannot use {storage}: {there.storage}; set it to a folder that every machine sees, or "
            "to an address such as s3://bucket/runs"
        )


def _why_not(storage: str) -> str | None:
    if "://" not in storage:
        return None if Path(storage).is_file() else "this machine's folder is not seen there"
    try:
        Folder.at(storage).check_writable()
    except ConfigError as error:
        return str(error)
    return None


def _digest_of_code() -> str:
    files = [file for name in _CODE for file in (PROJECT / name).rglob("*.py")]
    return _digest(PROJECT, files)


def _digest_of_data(root: Path) -> str | None:
    meta = root / "meta"
    return _digest(meta, [file for file in meta.rglob("*") if file.is_file()]) if meta.is_dir() else None


def _digest(folder: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
