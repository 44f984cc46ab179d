"""Episodes as they end, so that an evaluation that is interrupted goes on with the others.

``episodes.jsonl`` in the folder of the results: a line that says what the episodes depend on, then one for each.
It goes when ``results.json`` is written.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smolvla_core.closed_loop.stage import Episode
from smolvla_core.errors import ConfigError

EPISODES_FILE = "episodes.jsonl"
_WEIGHTS = "model.safetensors"


class Kept:
    """The episodes that an evaluation has had so far.

    Args:
        folder: of its results; it is made when the first episode ends.
        depends_on: all that decides what comes of an instance, in types of JSON.
        replace: forget those of another evaluation, in place of refusing them.

    Raises:
        ConfigError: the folder keeps episodes of another evaluation that was interrupted, or something else.
    """

    def __init__(self, folder: Path, depends_on: Mapping[str, Any], *, replace: bool = False):
        self._file = folder / EPISODES_FILE
        self._head = json.dumps({"depends_on": depends_on}, sort_keys=True)
        self.episodes: dict[int, Episode] = {}
        """By instance."""
        head, *lines = self._whole_lines() or [self._head]
        try:
            known = [Episode(**json.loads(line)) for line in lines] if head == self._head else None
        except (TypeError, ValueError):  # damaged
            known = None
        if known is not None:
            self.episodes = {each.instance: each for each in known}
        elif replace:
            self.clear()
        else:
            raise ConfigError(
                f"--out: {folder} keeps the episodes of another evaluation, which was interrupted, or was damaged; "
                f"give another folder, or delete {self._file}"
            )

    def _whole_lines(self) -> list[str]:
        """Those of the file, which is cut where a power cut tore the last one."""
        if not self._file.is_file():
            return []
        text = self._file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self._file.write_text(whole, encoding="utf-8")
        return whole.splitlines()

    def add(self, episode: Episode) -> None:
        """Keep one more."""
        self.episodes[episode.instance] = episode
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            new = file.tell() == 0
            file.write("\n".join([*([self._head] if new else []), json.dumps(asdict(episode)), ""]))

    def clear(self) -> None:
        """Forget all of them."""
        self.episodes.clear()
        self._file.unlink(missing_ok=True)


def weights_digest(policy: Path) -> str:
    """A digest of a policy's weights, which tells policies apart that were in the same folder."""
    with (policy / _WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
