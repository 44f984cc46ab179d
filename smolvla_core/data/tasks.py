"""Which task the frames of a LeRobot v3.0 dataset are of, as its files say it."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from smolvla_core.errors import DataError, first_line


def tasks_of(table: pd.DataFrame) -> dict[int, str]:
    """Texts of ``meta/tasks.parquet`` by number: its index, or a column ``task`` where another program wrote it."""
    texts = table["task"] if "task" in table.columns else table.index
    return {int(number): str(text) for number, text in zip(table["task_index"], texts, strict=True)}


def tasks_of_frames(root: Path) -> dict[int, list[int]]:
    """Numbers of the tasks of each episode's frames, by the episode, ascending; of the files that are there.

    Raises:
        DataError: a file is damaged, or has no such column.
    """
    found: dict[int, set[int]] = {}
    for file in sorted((root / "data").rglob("*.parquet")):
        try:
            table = pq.read_table(file, columns=["episode_index", "task_index"])
            pairs = table.group_by(["episode_index", "task_index"]).aggregate([]).to_pylist()
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DataError(f"{file}: cannot be read: {first_line(error).rstrip('.')}; fetch the file again") from None
        for row in pairs:
            found.setdefault(int(row["episode_index"]), set()).add(int(row["task_index"]))
    return {episode: sorted(tasks) for episode, tasks in sorted(found.items())}
