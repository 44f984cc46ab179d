"""``python -m tests.stub_driver STORAGE RUN_DIR [resume]``: a study of stubs in a process that tests kill."""

import json
import sys
from pathlib import Path

from tests.stub import stub_spec, stub_trainable
from tune.study import Study

if __name__ == "__main__":
    storage, run_dir, changes, *rest = sys.argv[1:]
    spec = stub_spec(Path(storage), **json.loads(changes))
    summary = Study(spec, Path(run_dir), spec.to_yaml(), trainable=stub_trainable).run(resume=bool(rest))
    sys.exit(0 if summary.state == "complete" else 1)
