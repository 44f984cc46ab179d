"""Checks of a recording's videos: are the pictures there, one a frame, and do they show anything?"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smolvla_core.data.audit_checks import CLOCK_TOLERANCE_S, Finding
from smolvla_core.data.audit_read import Clip, Recording
from smolvla_core.data.video_files import VideoFacts, frames_at, inspect_video
from smolvla_core.errors import DataError

PICTURES = 6
"""Pictures decoded of each episode that is looked at."""
DARK_LEVEL = 8.0
FLAT_DEVIATION = 2.0
FROZEN_CHANGE = 0.5
"""Mean difference in grey levels under which two pictures are the same."""

OnClip = Callable[[int, int], None]


def check_cameras(recording: Recording, sample: int | None, on_clip: OnClip | None = None) -> list[Finding]:
    """Look at every camera: all files must exist, and a sample of episodes is counted and decoded.

    Args:
        recording: a dataset.
        sample: how many episodes to look into, evenly spread; None for all.
        on_clip: called with (clips done, of how many).
    """
    findings = []
    if recording.image_keys:
        found = f"{', '.join(recording.image_keys)}: stored as images in the parquet files, not looked at"
        findings.append(Finding("cameras", "ok", found))
    if not recording.clips:
        if not findings:
            findings.append(Finding("cameras", "fail", "no pictures", "SmolVLA needs at least one camera"))
        return findings
    episodes = len(recording.lengths)
    count = episodes if sample is None else min(sample, episodes)
    chosen = np.unique(np.linspace(0, episodes - 1, count).round().astype(int)).tolist()
    known: dict[Path, VideoFacts] = {}
    done, total = 0, len(chosen) * len(recording.clips)
    for key, clips in recording.clips.items():
        missing = [clip.path for clip in clips if not clip.path.is_file()]
        if missing:
            found = f"{key}: {len(missing)} of {len(clips)} videos are missing, the first {missing[0].name}"
            findings.append(Finding("cameras", "fail", found, "download them, or leave those episodes out"))
            continue
        problems: list[tuple[int, str]] = []
        pictures: dict[int, list[NDArray[np.uint8]]] = {}
        for episode in chosen:
            problem = _check_clip(recording, key, clips[episode], episode, known, pictures)
            if problem:
                problems.append((int(recording.numbers[episode]), problem))
            done += 1
            if on_clip:
                on_clip(done, total)
        findings += _verdicts(recording, key, problems, pictures, len(chosen))
    return findings


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
        alone = sum(other.path == clip.path for other in recording.clips[key]) == 1
        there = facts.frames if alone else len(own)
        if there != length:
            return f"{there} pictures for {length} frames"
        drift = np.abs(own - clip.start_s - np.arange(len(own)) / recording.fps) if len(own) == length else np.inf
        if np.max(drift) > CLOCK_TOLERANCE_S + np.spacing(np.float32(last)):
            return f"pictures are off the {recording.fps:g} Hz grid"
        if (facts.height, facts.width) != recording.sizes[key]:
            declared = recording.sizes[key]
            return f"{facts.height}×{facts.width} pixels, info.json says {declared[0]}×{declared[1]}"
        moments = own[np.unique(np.linspace(0, length - 1, PICTURES).round().astype(int))]
        pictures[episode] = frames_at(clip.path, moments.tolist(), CLOCK_TOLERANCE_S)
    except DataError as error:
        return str(error).removeprefix(f"{clip.path}: ")
    return ""


def _verdicts(
    recording: Recording,
    key: str,
    problems: Sequence[tuple[int, str]],
    pictures: dict[int, list[NDArray[np.uint8]]],
    looked: int,
) -> list[Finding]:
    if problems:
        number, problem = problems[0]
        found = f"{key}: {len(problems)} of {looked} episodes looked at; episode {number}: {problem}"
        return [Finding("cameras", "fail", found, "download or encode them again, or leave those episodes out")]
    findings = []
    dark = [e for e, shown in pictures.items() if any(is_blank(picture) for picture in shown)]
    frozen = [e for e, shown in pictures.items() if is_frozen(shown)]
    for episodes, word, todo in (
        (dark, "show black or empty pictures", "is the camera connected and uncovered?"),
        (frozen, "show one picture throughout", "did the camera hang? (a view without motion is harmless)"),
    ):
        if episodes:
            numbers = ", ".join(str(recording.numbers[e]) for e in episodes[:4])
            more = f" and {len(episodes) - 4} more" if len(episodes) > 4 else ""
            found = f"{key}: {len(episodes)} of {looked} episodes {word} ({numbers}{more})"
            findings.append(Finding("cameras", "warn", found, todo))
    height, width = recording.sizes[key]
    found = f"{key}: {height}×{width}, a picture for every frame ({looked} episodes looked at)"
    return findings or [Finding("cameras", "ok", found)]


def is_blank(picture: NDArray[np.uint8]) -> bool:
    """Whether a picture is black, or of one colour."""
    grey = picture.astype(np.float32).mean(axis=2)
    return bool(grey.mean() < DARK_LEVEL or grey.std() < FLAT_DEVIATION)


def is_frozen(pictures: Sequence[NDArray[np.uint8]]) -> bool:
    """Whether pictures from all over an episode are the same."""
    if len(pictures) < 3:
        return False
    first = pictures[0].astype(np.int16)
    return all(float(np.abs(picture - first).mean()) < FROZEN_CHANGE for picture in pictures[1:])
