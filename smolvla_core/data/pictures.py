"""Camera frames by row number, decoded by lerobot's own reader."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lerobot.datasets.video_utils import decode_video_frames
from lerobot.utils.import_utils import get_safe_default_video_backend
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from smolvla_core.data.dataset import Dataset, video_offsets
from smolvla_core.data.inside import inside
from smolvla_core.data.keys import picture_size
from smolvla_core.errors import DataError, first_line

_TOGETHER_S = 1.0
"""PyAV decodes pictures in one call that lie no further apart."""


@cache
def video_decoder() -> str:
    """Lerobot's choice: ``torchcodec``, or ``pyav`` where FFmpeg's libraries are missing."""
    return str(get_safe_default_video_backend())


class Camera:
    """One camera of a dataset, stored as videos or as pictures in the parquet files."""

    def __init__(self, dataset: Dataset, key: str):
        self.dataset, self.key = dataset, key
        self.is_video = key in dataset.meta.video_keys
        self.height, self.width = picture_size(dataset.meta.features[key])

    @cached_property
    def _offsets(self) -> tuple[list[Path], NDArray[np.float64]]:
        return video_offsets(self.dataset, self.key)

    @cached_property
    def _stored(self) -> tuple[pa.ChunkedArray, NDArray[np.int64]]:
        """The column in the files, and where in it each row stands: of the files' episodes some may not be used."""
        files = sorted((self.dataset.root / "data").rglob("*.parquet"))
        columns = [self.key, "episode_index"]
        table = pa.concat_tables(pq.read_table(file, columns=columns, memory_map=True) for file in files)
        return table[self.key], np.flatnonzero(np.isin(table["episode_index"].to_numpy(), self.dataset.recorded))

    def frames(self, rows: NDArray[np.int64]) -> Tensor:
        """Frames of some rows.

        Returns:
            (B, 3, H, W) uint8.

        Raises:
            DataError: a frame cannot be decoded, or has another size than the dataset declares.
        """
        distinct, places = np.unique(rows, return_inverse=True)
        pictures = self._from_video(distinct) if self.is_video else self._from_parquet(distinct)
        if tuple(pictures.shape[1:]) != (3, self.height, self.width):
            raise DataError(
                f"{self.dataset.root}: '{self.key}' decodes to {tuple(pictures.shape[1:])}, info.json promises "
                f"(3, {self.height}, {self.width}); correct info.json or fetch the video again"
            )
        return pictures[torch.from_numpy(places)]

    def _from_video(self, rows: NDArray[np.int64]) -> Tensor:
        dataset = self.dataset
        paths, offsets = self._offsets
        places: dict[Path, list[int]] = defaultdict(list)
        for position, row in enumerate(rows):
            places[paths[dataset.episode[row]]].append(position)
        pictures = torch.empty((len(rows), 3, self.height, self.width), dtype=torch.uint8)
        decoder = video_decoder()
        for path, positions in self._decoded_together(places, rows, decoder):
            wanted = rows[positions]
            seconds = (offsets[dataset.episode[wanted]] + dataset.timestamp[wanted]).tolist()
            try:
                decoded = decode_video_frames(path, seconds, 0.5 / dataset.fps, decoder, return_uint8=True)
            except (RuntimeError, ValueError, OSError, IndexError) as error:
                row = wanted[0]
                raise DataError(
                    f"{path}: frame {dataset.frame[row]} of episode {dataset.episode[row]} cannot be decoded "
                    f"({_reason(error)}); fetch the video again"
                ) from error
            if tuple(decoded.shape[1:]) != tuple(pictures.shape[1:]):
                return decoded
            pictures[positions] = decoded
        return pictures

    def _decoded_together(
        self, places: Mapping[Path, list[int]], rows: NDArray[np.int64], decoder: str
    ) -> Iterator[tuple[Path, list[int]]]:
        """Files, and the places of the rows that a call decodes: PyAV keeps all pictures from the first to the last."""
        for path, positions in places.items():
            if decoder != "pyav":
                yield path, positions
                continue
            apart = np.flatnonzero(np.diff(rows[positions]) > self.dataset.fps * _TOGETHER_S) + 1
            for run in np.split(np.asarray(positions), apart):
                yield path, run.tolist()

    def _from_parquet(self, rows: NDArray[np.int64]) -> Tensor:
        pictures = []
        column, places = self._stored
        for row in rows:
            stored = column[int(places[row])].as_py()
            try:
                data = stored["bytes"] or inside(self.dataset.root, stored["path"]).read_bytes()
                picture = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
            except (OSError, ValueError) as error:
                dataset = self.dataset
                raise DataError(
                    f"{dataset.root}: frame {dataset.frame[row]} of episode {dataset.episode[row]} of '{self.key}' "
                    f"cannot be read ({_reason(error)}); fetch the dataset again"
                ) from error
            pictures.append(torch.from_numpy(picture.copy()).permute(2, 0, 1))
        return torch.stack(pictures)


def _reason(error: Exception) -> str:
    """What a decoder says, without where in its own source it says so."""
    line = first_line(error)
    return re.sub(r"^.*\.(?:cpp|h|py):\d+, ", "", line).rstrip(". ") or type(error).__name__
