"""Checks of a recording's videos: are the pictures there, one a frame, and do they show anything?"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.audit.finding import Finding, episodes
from smolvla_core.data.audit.layout import Clip
from smolvla_core.data.audit.read import Recording
from smolvla_core.data.video_files import VideoFacts, frames_at, inspect_video
from smolvla_core.errors import DataError

PICTURES = 6
"""Pictures decoded of each episode that is looked at."""
CLOCK_TOLERANCE_S = 1e-4
"""lerobot's own between time stamps and pictures."""
DARK_LEVEL = 8.0
FLAT_DEVIATION = 2.0
FROZEN_CHANGE = 4.0
"""Mean difference in grey levels under which two patches are the same: an encoder's noise is about 1."""
PATCHES = 8
"""Patches to a side: a small thing that moves changes one of them a lot, and the whole picture little."""

OnClip = Callable[[int, int], None]


def check_cameras(recording: Recording, sample: int | None, on_clip: OnClip | None = None) -> list[Finding]:
    """Look at every camera: all files must exist, and a sample of episodes is counted and decoded.

    Args:
        recording: a dataset.
        sample: how many episodes to look into, evenly spread; None for all.
        on_clip: called with (clips done, of how many).
    """
    findings = []
    files = recording.files
    if files.image_keys:
        found = f"{', '.join(map(short, files.image_keys))}: stored as images in the parquet files, not looked at"
        findings.append(Finding("cameras", "ok", found))
    if not files.clips:
        if not findings:
            findings.append(Finding("cameras", "fail", "no pictures", "SmolVLA needs at least one camera"))
        return findings
    total = len(recording.lengths)
    count = total if sample is None else min(sample, total)
    chosen = np.unique(np.linspace(0, total - 1, count).round().astype(int)).tolist()
    good = []
    for position, (key, clips) in enumerate(files.clips.items()):
        missing = [clip.path for clip in clips if not clip.path.is_file()]
        if missing:
            found = f"{short(key)}: {len(missing)} of {len(clips)} videos are missing, the first {missing[0].name}"
            findings.append(Finding("cameras", "fail", found, "download them, or leave those episodes out"))
            continue
        problems: list[tuple[int, str]] = []
        pictures: dict[int, list[NDArray[np.uint8]]] = {}
        known: dict[Path, VideoFacts] = {}
        for done, episode in enumerate(chosen, start=1):
            problem = _check_clip(recording, key, clips[episode], episode, known, pictures)
            if problem:
                problems.append((int(recording.numbers[episode]), problem))
            if on_clip:
                on_clip(position * len(chosen) + done, len(files.clips) * len(chosen))
        bad = _verdicts(recording, key, problems, pictures, len(chosen))
        findings += bad
        good += [] if bad else [f"{short(key)} {files.sizes[key][0]}×{files.sizes[key][1]}"]
    if good:
        part = f"all {total}" if len(chosen) == total else f"{len(chosen)} of {total}"
        found = f"{', '.join(good)}: a picture for every frame ({part} episodes looked at)"
        findings.append(Finding("cameras", "ok", found))
    return findings


def short(key: str) -> str:
    """A camera's key without what all cameras have in common."""
    return key.removeprefix("observation.").removeprefix("images.")


def _check_clip(
    recording: Recording,
    key: str,
    clip: Clip,
    episode: int,
    known: dict[Path, VideoFacts],
    pictures: dict[int, list[NDArray[np.uint8]]],
) -> str:
    """What is wrong with one episode's pictures, else nothing; decoded ones go into ``pictures``."""
    length = int(recording.lengths[episode])
    try:
        facts = known.get(clip.path) or inspect_video(clip.path)
        known[clip.path] = facts
        half = 0.5 / recording.fps
        last = clip.start_s + (length - 1) / recording.fps
        own = facts.seconds[(facts.seconds > clip.start_s - half) & (facts.seconds < last + half)]
        alone = sum(other.path == clip.path for other in recording.files.clips[key]) == 1
        there = facts.frames if alone else len(own)
        if there != length:
            return f"{there} pictures for {length} frames"
        drift = np.abs(own - clip.start_s - np.arange(len(own)) / recording.fps) if len(own) == length else np.inf
        if np.max(drift) > CLOCK_TOLERANCE_S + np.spacing(np.float32(last)):
            return f"pictures are off the {recording.fps:g} Hz grid"
        if (facts.height, facts.width) != recording.files.sizes[key]:
            declared = recording.files.sizes[key]
            return f"{facts.height}×{facts.width} pixels, info.json says {declared[0]}×{declared[1]}"
        moments = own[np.unique(np.linspace(0, length - 1, PICTURES).round().astype(int))]
        pictures[episode] = frames_at(clip.path, moments.tolist(), CLOCK_TOLERANCE_S)
    except DataError as error:
        return str(error).removeprefix(f"{clip.path}: ").split(";")[0]
    return ""


def _verdicts(
    recording: Recording,
    key: str,
    problems: Sequence[tuple[int, str]],
    pictures: dict[int, list[NDArray[np.uint8]]],
    looked: int,
) -> list[Finding]:
    """What is wrong with a camera; nothing where it is good."""
    if problems:
        number, problem = problems[0]
        found = f"{short(key)}: {len(problems)} of {looked} episodes looked at; episode {number}: {problem}"
        return [Finding("cameras", "fail", found, "download or encode them again, or leave those episodes out")]
    findings = []
    dark = [e for e, shown in pictures.items() if any(is_blank(picture) for picture in shown)]
    frozen = [e for e, shown in pictures.items() if is_frozen(shown)]
    for bad, what, todo in (
        (dark, "black or empty pictures", "is the camera connected and uncovered?"),
        (frozen, "one picture throughout", "did the camera hang? (harmless where nothing moves in its view)"),
    ):
        if bad:
            found = f"{short(key)}: {what} in {episodes(recording.numbers[bad])} (of {looked} looked at)"
            findings.append(Finding("cameras", "warn", found, todo))
    return findings


def is_blank(picture: NDArray[np.uint8]) -> bool:
    """Whether a picture is black, or of one colour."""
    grey = picture.astype(np.float32).mean(axis=2)
    return bool(grey.mean() < DARK_LEVEL or grey.std() < FLAT_DEVIATION)


def is_frozen(pictures: Sequence[NDArray[np.uint8]]) -> bool:
    """Whether pictures from all over an episode are the same."""
    first = _patches(pictures[0].astype(np.float32))
    changes = (np.abs(_patches(picture.astype(np.float32)) - first).mean(axis=(1, 3, 4)) for picture in pictures[1:])
    return len(pictures) > 2 and all(float(change.max()) < FROZEN_CHANGE for change in changes)


def _patches(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows, height, columns, width, 3) of a picture, its last few lines cut where they do not fit."""
    height, width = (max(1, side // PATCHES) for side in picture.shape[:2])
    rows, columns = picture.shape[0] // height, picture.shape[1] // width
    return picture[: rows * height, : columns * width].reshape(rows, height, columns, width, 3)
