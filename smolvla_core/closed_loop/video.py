"""A video of an episode: the head's camera, the wrists' beside it."""

from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from smolvla_core.closed_loop.environment import Live
from smolvla_core.live import CAMERAS

SMALLEST_PX = 288
"""Height of a video at least: smaller pictures are enlarged by whole numbers."""


class Film:
    """Encodes live observations as they come, as H.264 in MP4; the file appears when it is whole.

    Args:
        path: the new file; its folder is made.
        hz: pictures a second.
    """

    def __init__(self, path: Path, hz: float):
        self._path, self._rate = path, round(hz)
        self._part = path.with_name(f".{path.name}.part.mp4")
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None

    def add(self, live: Live) -> None:
        """Film what is seen now; nothing where it has no pictures."""
        if any(key not in live for key in CAMERAS.values()):
            return
        picture = beside(*(np.asarray(live[key])[..., :3] for key in CAMERAS.values()))
        if self._container is None or self._stream is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._part), "w")
            options = {"crf": "23", "preset": "fast"}
            self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
            self._stream.height, self._stream.width = picture.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))

    def close(self) -> None:
        """Finish the file."""
        if self._container is not None and self._stream is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._part.replace(self._path)


def beside(head: NDArray[np.uint8], left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One picture (H, W, 3) of even sides: the head's, and to its right the left wrist's above the right one's."""
    height = 4 * max(1, -(-max(len(head), SMALLEST_PX) // 4))
    return np.hstack([_square(head, height), np.vstack([_square(one, height // 2) for one in (left, right)])])


def _square(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The nearest pixels, for ``side`` by ``side``."""
    rows = np.arange(side) * picture.shape[0] // side
    columns = np.arange(side) * picture.shape[1] // side
    return np.ascontiguousarray(picture[rows][:, columns])
