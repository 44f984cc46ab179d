"""A study's folder: ``<storage>/<study>-<time>``, with the YAML as given and as resolved."""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from smolvla_core.command import refuse_unwritable
from smolvla_core.config_values import load_yaml
from smolvla_core.errors import ConfigError, DataError, first_line
from tune.fitted_frames import with_stored
from tune.records import Records
from tune.remote import Folder, join
from tune.spec import SearchSpec, is_uri
from tune.tracking.mlflow_store import ADDRESS, BLOT, PASSWORD, USERNAME, is_server, mask

GIVEN, RESOLVED, DATASET, OBJECTIVE = "study.yaml", "study.resolved.yaml", "dataset.json", "objective.json"
CLAIMS_PLAN = "claims_plan.json"
"""It tells a folder of ``tune.claims``, whose trainings are no trials of a search."""
MAY_DIFFER = ("budget", "finalists", "closed_loop", "resources", "max_concurrent")
"""Sections that may change when a study is resumed."""

_TIME = re.compile(r"-(\d{8}-\d{6})(?:-(\d+))?")


def new_folder(spec: SearchSpec) -> Path:
    """A name for a new study's folder; nothing is made yet, but the storage is tried.

    Raises:
        ConfigError: the storage cannot be written.
    """
    if spec.is_remote:
        Folder.at(spec.storage).check_writable()
    else:
        refuse_unwritable("storage", Path(spec.storage))
        if "?" in spec.storage:
            raise ConfigError(
                f"storage: {spec.storage} holds a '?', where the address of an SQLite file ends; give another folder"
            )
    stem = _home(spec) / f"{spec.study}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = stem, 1
    while folder.exists():
        number += 1
        folder = stem.with_name(f"{stem.name}-{number}")
    return folder


@contextmanager
def taken(folder: Path, spec: SearchSpec) -> Iterator[Path]:
    """A new study's folder, made for this process alone; if nothing is kept in it, what was made vanishes again.

    Args:
        folder: by :func:`new_folder`. Where another process has taken it since, it is named anew.
        spec: of the study.
    """
    above = [place for place in folder.parents if not place.exists()]
    while True:
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            folder = new_folder(spec)
    try:
        yield folder
    finally:
        with suppress(OSError):  # it holds something
            for made in (folder, *above):
                made.rmdir()


def write_specification(
    folder: Path,
    spec: SearchSpec,
    yaml_text: str,
    dataset: Mapping[str, Any] | None = None,
    objective: Mapping[str, Any] | None = None,
) -> None:
    """Keep the YAML as given, and as resolved, what identifies the data, and what the objective is measured on.

    Names and passwords in addresses are blotted out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / GIVEN, mask(yaml_text))
    write_whole(folder / RESOLVED, _without_password(spec).to_yaml())
    for name, facts in ((DATASET, dataset), (OBJECTIVE, objective)):
        if facts is not None:
            write_whole(folder / name, json.dumps(dict(facts), indent=2) + "\n")


def refuse_other_data(folder: Path, dataset: Mapping[str, Any]) -> None:
    """Refuse to go on with a study whose data is no longer what its trials were scored on.

    Raises:
        ConfigError: the digest differs.
    """
    stored = stored_dataset(folder)
    if stored is None:
        return
    for before, now in zip(_each(stored), _each(dataset), strict=True):
        if before["digest"] != now["digest"]:
            raise ConfigError(
                f"--resume: {now['root']} has changed since {folder} was started ({before['frames']:,} frames then, "
                f"{now['frames']:,} now), so that trials could not be compared; restore it, or start a new study"
            )


def _each(dataset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [dataset, *dataset.get("others", ())]


def write_whole(file: Path, text: str) -> None:
    """Write a file that appears whole or not at all, however the process ends."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def find_folder(spec: SearchSpec) -> Path:
    """The newest folder of a study; of one in a remote storage, with its records as they are there.

    Raises:
        ConfigError: there is none.
    """
    home = spec.storage if spec.is_remote else _home(spec)
    names = (
        _remote_studies(str(home))
        if spec.is_remote
        else (file.parent.name for file in Path(home).glob(f"*/{RESOLVED}"))
    )
    found = [(age, name) for name in names if (age := _age(name, spec.study))]
    if not found:
        raise ConfigError(f"--resume: {home} holds no run of the study '{spec.study}'; leave --resume out to start one")
    return opened(join(spec.storage, max(found)[1]) if spec.is_remote else str(Path(home) / max(found)[1]))


def opened(place: str, asked_by: str = "--resume") -> Path:
    """A study's folder here, given as a path, or as the address in a remote storage that its records are taken from.

    Raises:
        ConfigError: the address cannot be opened, or holds no study.
        StudyBusyError: a living driver runs the study at the address.
    """
    if not is_uri(place):
        return Path(place).absolute()
    from tune.mirror import fetched

    return fetched(place, asked_by)


def _remote_studies(storage: str) -> list[str]:
    try:
        home = Folder.at(storage, "--resume")
        return [name for name in home.folders() if home.has(f"{name}/{RESOLVED}")]
    except OSError as error:
        raise ConfigError(f"--resume: {storage} cannot be read ({first_line(error)})") from None


def stored_spec(folder: Path, asked_by: str = "--resume") -> SearchSpec:
    """The specification that a study's folder was started with.

    Args:
        folder: of the study.
        asked_by: the argument that named the folder.

    Raises:
        ConfigError: the folder holds no study, or one that this version cannot read.
    """
    file = folder / RESOLVED
    if not file.is_file():
        raise ConfigError(
            f"{asked_by}: {folder} holds no {RESOLVED}; give a study's folder, e.g. runs/demo-20260131-120000"
        )
    try:
        values = load_yaml(file.read_text(encoding="utf-8"), where=str(file))
        return SearchSpec.from_dict(values if isinstance(values, dict) else {})
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{asked_by}: {file} was damaged, or written by another version ({error}); take that version, or start a "
            "new study"
        ) from None


def stored_yaml(folder: Path) -> str:
    """The YAML that a study was started with, as the user wrote it; empty where it was not kept."""
    file = folder / GIVEN
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def stored_dataset(folder: Path) -> dict[str, Any] | None:
    """What identifies the data that a study was started with; None where it was not kept.

    Raises:
        DataError: it was damaged.
    """
    file = folder / DATASET
    if not file.is_file():
        return None
    try:
        dataset = json.loads(file.read_text(encoding="utf-8"))
        if all({"digest", "frames"} <= one.keys() for one in _each(dataset)):
            return dict(dataset)
    except (ValueError, AttributeError):
        pass
    raise DataError(f"{file}: damaged, so that it is not known whether the data is the same; restore it, or remove it")


def resumed_spec(folder: Path, given: SearchSpec | None, extend: int, trials_set: bool = False) -> SearchSpec:
    """What a resumed study goes on with: the stored specification, with the budget and resources given now.

    Args:
        folder: of the study.
        given: the YAML as it is now, or None to take what is stored.
        extend: trials to add.
        trials_set: ``budget.trials`` was given with ``--set``, so that it may be fewer than before.

    Raises:
        ConfigError: another part of the YAML has changed since; the study's trials could not be compared. Or the
            folder is one of ``tune.claims``, or has more trials than are asked for.
    """
    if (folder / CLAIMS_PLAN).is_file():
        raise ConfigError(
            f"--resume: {folder} holds trainings of tune.claims and no search; go on with python -m tune.claims "
            f"--resume {folder}"
        )
    stored = stored_spec(folder)
    values = stored.to_dict()
    if given is not None:
        now = with_stored(values, _without_password(given).to_dict())
        for section in values:
            if section not in MAY_DIFFER and values[section] != now[section]:
                place, before, after = next(_differences(values[section], now[section], section))
                raise ConfigError(
                    f"--resume: {place} differs from what {folder} was started with ({before} then, {after} now); "
                    "put it back, or leave --resume out to start a new study"
                )
        values |= {section: now[section] for section in MAY_DIFFER}
        values["tracking"] = given.to_dict()["tracking"]
    trials, begun = values["budget"]["trials"], len(Records(folder).trials())
    if not trials_set:
        trials = max(trials, stored.budget.trials)  # a study that was extended has more than its YAML says
    elif trials < begun:
        raise ConfigError(
            f"--set: budget.trials={trials} is fewer than the {begun} that {folder} has begun; give at least {begun}"
        )
    values["budget"] = {**values["budget"], "trials": trials + extend}
    return with_password(SearchSpec.from_dict(values), folder)


def with_password(spec: SearchSpec, folder: Path) -> SearchSpec:
    """A stored specification, with the password of its tracking server taken from the environment.

    Raises:
        ConfigError: its address had one, which is not kept, and it is not there.
    """
    uri = spec.tracking.uri
    if uri is None or BLOT not in uri:
        return spec
    whole = os.environ.get(ADDRESS, "")
    if mask(whole) == uri:
        return _tracked_at(whole, spec)
    if is_server(uri) and USERNAME in os.environ:
        return _tracked_at(uri.replace(BLOT, ""), spec)
    raise ConfigError(
        f"the password of tracking.uri ({uri}) is not kept in {folder}; set {ADDRESS} to the whole address, or for a "
        f"server {USERNAME} and {PASSWORD}, in the environment"
    )


def _without_password(spec: SearchSpec) -> SearchSpec:
    return spec if spec.tracking.uri is None else _tracked_at(mask(spec.tracking.uri), spec)


def _tracked_at(uri: str, spec: SearchSpec) -> SearchSpec:
    return spec.model_copy(update={"tracking": spec.tracking.model_copy(update={"uri": uri})})


def _differences(old: Any, new: Any, place: str) -> Iterator[tuple[str, str, str]]:
    """Dotted key, old value and new value of everything that differs."""
    if old == new:
        return
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        yield place, _shown(old), _shown(new)
        return
    for key in (*old, *(key for key in new if key not in old)):
        if key in old and key in new:
            yield from _differences(old[key], new[key], f"{place}.{key}")
        else:
            before, after = (_shown(side[key]) if key in side else "absent" for side in (old, new))
            yield f"{place}.{key}", before, after


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _home(spec: SearchSpec) -> Path:
    """Folder of the records; those of a remote storage are worked on here and copied there (``tune.mirror``)."""
    return Path("runs").absolute() if is_uri(spec.storage) else Path(spec.storage)


def _age(name: str, study: str) -> tuple[str, int] | None:
    """What orders a study's folders by age; None for another study's, such as demo-2's for demo."""
    found = _TIME.fullmatch(name.removeprefix(study)) if name.startswith(study) else None
    return (found[1], int(found[2] or 1)) if found else None
