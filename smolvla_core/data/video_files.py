"""Video files: write, inspect, and look at single pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from numpy.typing import NDArray

from smolvla_core.errors import DataError

SMALL_PX = 64
"""Below this, x265's lookahead writes past its buffers (x265 4.1 in PyAV 15: heap corruption up to 48), and blocks
of the usual 64 pixels, larger than the picture, read what was never written: the bytes change from call to call."""
SEEK_MARGINS_S = (0.01, 2.0, 1e6)
"""Tried in turn: with open GOPs, seeking to a picture can land on the key frame after it."""


@dataclass(frozen=True)
class VideoFacts:
    """What a file says of its video stream, and its pictures' time stamps."""

    width: int
    height: int
    codec: str
    pix_fmt: str
    seconds: NDArray[np.float64]
    """(n,) presentation times in ascending order."""

    @property
    def frames(self) -> int:
        """Number of pictures in the file."""
        return len(self.seconds)


def write_hevc(path: Path, frames: Iterable[NDArray[np.uint8]], fps: int, pix_fmt: str = "yuv420p") -> None:
    """Encode pictures as HEVC in MP4; the same input gives the same bytes.

    Args:
        path: the new file; its folder is made.
        frames: (H, W, 3) uint8 each, H and W even, all of one size.
        fps: pictures a second.
        pix_fmt: as FFmpeg calls it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream: VideoStream | None = None
        for picture in frames:
            if stream is None:
                options = _x265_options(*picture.shape[:2])
                stream = cast(VideoStream, output.add_stream("libx265", rate=fps, options=options))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pix_fmt
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if stream is not None:
            output.mux(stream.encode())


def _x265_options(height: int, width: int) -> dict[str, str]:
    """Fast, quick to seek in, and without threads, whose timing would change the bytes."""
    parameters = "log-level=none:keyint=10:min-keyint=10:open-gop=0:pools=none:frame-threads=1"
    if min(height, width) < SMALL_PX:
        parameters += ":rc-lookahead=0:bframes=0:scenecut=0:ctu=16"
    return {"preset": "ultrafast", "crf": "18", "x265-params": parameters}


def inspect_video(path: Path) -> VideoFacts:
    """Read a file's packets, without decoding them.

    Raises:
        DataError: missing, no video in it, or cut off.
    """
    if not path.is_file():
        raise DataError(f"{path}: the video is missing; download it")
    try:
        with _opened(path) as source:
            if not source.streams.video:
                raise DataError(f"{path}: holds no video stream; download it again")
            stream = source.streams.video[0]
            ticks = [p.pts for p in source.demux(stream) if p.pts is not None and p.size]
            base, codec = float(stream.time_base or 0), stream.codec_context
            facts = (codec.width, codec.height, codec.codec.canonical_name, codec.pix_fmt or "")
    except (FFmpegError, OSError) as error:
        raise DataError(f"{path}: the video cannot be read ({_reason(error)}); download it again") from None
    return VideoFacts(*facts, np.sort(np.asarray(ticks, dtype=np.float64)) * base)


def frames_at(path: Path, seconds: Sequence[float], tolerance: float) -> list[NDArray[np.uint8]]:
    """Decode the pictures nearest to some times, each found by seeking.

    Args:
        path: a video file.
        seconds: ascending presentation times.
        tolerance: the most a picture's time may differ, seconds.

    Returns:
        One picture (H, W, 3) uint8 for each time.

    Raises:
        DataError: a picture is missing there, or cannot be decoded whole.
    """
    pictures = []
    try:
        with _opened(path) as source:
            stream = source.streams.video[0]
            stream.codec_context.thread_count = 1  # with several, whether damage is noticed is left to chance
            base = float(stream.time_base or 0)
            for second in seconds:
                picture = None
                for margin in SEEK_MARGINS_S:
                    source.seek(max(0, int((second - margin) / base)), stream=stream)
                    picture = _first_from(source, second, tolerance)
                    if picture is not None:
                        break
                else:
                    raise DataError(f"{path}: no whole picture at {second:.3f} s; download the video again")
                pictures.append(picture)
    except (FFmpegError, OSError, IndexError) as error:
        raise DataError(f"{path}: a picture cannot be decoded ({_reason(error)}); download it again") from None
    return pictures


def _opened(path: Path) -> InputContainer:
    av.logging.set_level(None)  # lerobot's reader leaves FFmpeg talking to stderr
    return av.open(str(path), metadata_errors="ignore")


def _first_from(source: InputContainer, second: float, tolerance: float) -> NDArray[np.uint8] | None:
    """The picture at a time; None where the first from there on is later, or damaged."""
    for frame in source.decode(video=0):
        if frame.time is not None and frame.time >= second - tolerance:
            good = frame.time <= second + tolerance and not frame.is_corrupt
            return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8) if good else None
    return None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)
