"""Checks of the episodes: are they what the metadata promises, on time, of sensible length, named?"""

import hashlib

import numpy as np

from smolvla_core.config import PolicyConfig
from smolvla_core.data.annotations import SkillSpan, load_annotations, manipulation_spans, read_annotation
from smolvla_core.data.audit.finding import Finding, episodes
from smolvla_core.data.audit.read import Recording
from smolvla_core.data.wording import counted
from smolvla_core.errors import DataError

CLOCK_TOLERANCE_S = 1e-4
"""lerobot's own between time stamps and pictures."""
SHORT_S = 1.0
LONG_FACTOR = 4.0
"""An episode that is this many times the median's length was perhaps not stopped in time."""
TOKENS_PER_WORD = 1.3
TOKENIZER_MAX_LENGTH: int = PolicyConfig.model_fields["tokenizer_max_length"].default


def check_files(recording: Recording) -> list[Finding]:
    """Episodes and frames against what the metadata says; training refuses a dataset that contradicts it."""
    files, numbers = recording.files, recording.numbers
    pairs = zip(numbers.tolist(), recording.lengths.tolist(), strict=True)
    other = [number for number, length in pairs if files.listed.get(number, length) != length]
    if files.raw:
        found = f"{len(numbers)} of the {len(files.listed):,} listed episodes are on disk"
        if not other:
            return [Finding("files", "ok", found)]
        found += f"; {episodes(other)} {'has' if len(other) == 1 else 'have'} another length than listed"
        return [Finding("files", "warn", found, "was the download cut off? the import takes the files' own length")]
    problems = []
    if files.promised and files.promised != (len(numbers), len(recording.episode)):
        problems.append(
            f"info.json promises {files.promised[0]} episodes of {files.promised[1]} frames, "
            f"the files hold {len(numbers)} of {len(recording.episode)}"
        )
    elif numbers.tolist() != list(range(len(numbers))):
        problems.append(f"episodes are not numbered from 0 to {len(numbers) - 1}")
    elif other:
        problems.append(f"{episodes(other)}: another length than meta/episodes says")
    if problems:
        todo = "download the rest, or convert it; training refuses it, unless all of its task (data.train) is here"
        return [Finding("files", "fail", problems[0], todo)]
    return [Finding("files", "ok", "as many episodes and frames as the metadata promises")]


def check_lengths(recording: Recording) -> list[Finding]:
    """Very short and very long episodes, and episodes recorded twice."""
    seconds = recording.lengths / recording.fps
    middle = float(np.median(seconds))
    found = f"{counted(len(seconds), 'episode')} of {seconds.min():.1f} to {seconds.max():.1f} s, median {middle:.1f} s"
    findings = []
    for chosen, text, todo in (
        (recording.lengths == 1, "one frame only", "remove them"),
        ((seconds < SHORT_S) & (recording.lengths > 1), f"under {SHORT_S:g} s", "false starts? remove them"),
        (seconds > LONG_FACTOR * middle, f"over {LONG_FACTOR:g} times the median", "not stopped in time? cut the end"),
    ):
        if chosen.any():
            numbers = recording.numbers[chosen]
            findings.append(Finding("episode lengths", "warn", f"{episodes(numbers)}: {text}", todo))
    copies = _copies(recording)
    if copies:
        found_twice = f"episodes {copies[0]} and {copies[1]} are the same recording"
        findings.append(Finding("episode lengths", "warn", found_twice, "remove one"))
    if len(recording.lengths) < 3:
        todo = "record more: training, validation and test need an episode each"
        findings.append(Finding("episode lengths", "warn", found, todo))
    return findings or [Finding("episode lengths", "ok", found)]


def check_clock(recording: Recording) -> list[Finding]:
    """Time stamps against frame number / fps."""
    if recording.seconds is None:
        found = f"none stored; frames are taken to be 1/{recording.fps:g} s apart"
        return [Finding("time stamps", "ok", found)]
    frame = np.arange(len(recording.episode)) - np.repeat(recording.starts, recording.lengths)
    drift = np.abs(recording.seconds - frame / recording.fps)
    wrong = np.flatnonzero(~(drift <= CLOCK_TOLERANCE_S + recording.clock_step_s))
    if len(wrong) == 0:
        return [Finding("time stamps", "ok", f"every frame stands on the {recording.fps:g} Hz grid")]
    steps = np.diff(recording.seconds)[np.diff(recording.episode) == 0]
    found = (
        f"{counted(len(wrong), 'frame')} off the {recording.fps:g} Hz grid, the first {recording.where(int(wrong[0]))}"
    )
    details = []
    gaps, back = int((steps > 1.5 / recording.fps).sum()), int((steps <= 0).sum())
    rate = 1.0 / float(np.median(steps)) if len(steps) and np.median(steps) > 0 else recording.fps
    details += [counted(gaps, "gap")] if gaps else []
    details += [f"{counted(back, 'step')} back"] if back else []
    details += [f"the usual rate is {rate:.2f} Hz"] if abs(rate / recording.fps - 1) > 0.01 else []
    todo = "resample those episodes to a fixed rate, or correct fps in info.json; lerobot refuses such frames"
    return [Finding("time stamps", "fail", "; ".join([found, *details]), todo)]


def check_instructions(recording: Recording) -> list[Finding]:
    """What the policy is told."""
    given = recording.files.instructions
    empty = recording.numbers[[not text.strip() for text in given]]
    if len(empty):
        todo = "give every episode a task; the policy is told what to do"
        return [Finding("instructions", "fail", f"{episodes(empty)}: none", todo)]
    texts = sorted(set(given))
    words = max(len(text.split()) for text in texts)
    found = f"one of {words} words" if len(texts) == 1 else f"{len(texts)}, the longest of {words} words"
    if words * TOKENS_PER_WORD > TOKENIZER_MAX_LENGTH:
        return [Finding("instructions", "warn", found, "raise policy.tokenizer_max_length, or it will be cut")]
    return [Finding("instructions", "ok", found)]


def check_annotations(recording: Recording) -> list[Finding]:
    """Skill annotations of BEHAVIOR's data, raw or imported; nothing where there are none."""
    try:
        annotations = _annotations(recording)
    except DataError as error:
        return [Finding("annotations", "fail", str(error))]
    if not annotations:
        return []
    inside = np.zeros(len(recording.episode), dtype=bool)
    parts = dict(zip(recording.numbers.tolist(), recording.parts(), strict=True))
    for number, spans in annotations.items():
        if number in parts:
            own = inside[parts[number]]
            for span in manipulation_spans(spans):
                own[span.start : span.stop] = True
    found = (
        f"{len(annotations)} of {len(recording.lengths)} episodes; picks and places cover "
        f"{100 * inside.mean():.0f} % of the frames"
    )
    bare = [number for number in parts if number not in annotations]
    if bare:
        todo = "the objective's critical frames are taken from annotated episodes only"
        return [Finding("annotations", "warn", f"{found}; none for {episodes(bare)}", todo)]
    if not inside.any():
        return [Finding("annotations", "warn", found, "no critical frames; set eval.critical to gripper or progress")]
    return [Finding("annotations", "ok", found)]


def _annotations(recording: Recording) -> dict[int, list[SkillSpan]]:
    if not recording.files.raw:
        return load_annotations(recording.root) or {}
    lengths = dict(zip(recording.numbers.tolist(), recording.lengths.tolist(), strict=True))
    return {number: read_annotation(path, lengths[number]) for number, path in recording.files.annotations.items()}


def _copies(recording: Recording) -> tuple[int, int] | None:
    seen: dict[bytes, int] = {}
    for part, number in zip(recording.parts(), recording.numbers.tolist(), strict=True):
        rows = np.ascontiguousarray(recording.action[part])
        key = hashlib.blake2b(rows).digest()
        if len(rows) > 1 and key in seen:
            return seen[key], number
        seen[key] = number
    return None
