"""docker/cluster.local.yaml as a user runs it: three machines joined over ssh, a search on all of them.

Slow, so run by ``make test-cluster`` alone.
"""

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from tests.hosts import Hosts, missing

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[1]
CONFIG = "docker/cluster.local.yaml"
MACHINES = ("head", "one", "two")
SEARCH = """\
study: small
trial:
  data: {train: [{root: "${EGGS_DATA}"}], val_fraction: 0.2, test_fraction: 0.1}
  state: {preset: top32}
  policy: {pretrained: tiny, num_steps: 2}
  optim: {samples: 64, lr: 1.0e-3}
  eval: {frames: 4, draws: 1}
search:
  weighting.alpha:   {type: float, low: 0.0, high: 2.0}
  optim.batch_size:  {type: categorical, choices: [8, 16]}
warm_start:
  seed_baseline: {weighting.alpha: 0.0, optim.batch_size: 8}
budget: {trials: 3}
asha: {grace_samples: 32, reduction_factor: 2}
resources: {cpus: 1.5}
tracking: {uri: "${MLFLOW_TRACKING_URI}"}
storage: "${EGGS_STORAGE}"
"""
# What the set-up command leaves on a machine, of the packages that are installed here already.
SETUP = """\
set -e
cd ~/smolvla-tune
{python} -m venv --without-pip .venv
printf '%s\\n' "$PWD" {packages} > .venv/lib/python{version}/site-packages/project.pth
printf '%s\\n' "#!$PWD/.venv/bin/python" 'from ray.scripts.scripts import main' 'main()' > .venv/bin/ray
chmod +x .venv/bin/ray
"""


@dataclass(frozen=True)
class Cluster:
    """The machines, and the project's folder on the user's laptop."""

    hosts: Hosts
    project: Path

    def run(self, command: str, timeout: float = 500) -> tuple[int, str]:
        """A command in the project's folder on the laptop: its exit code and output."""
        done = self.hosts.run("laptop", f"cd {self.project} && echo {shlex.quote(command)} && {command}", timeout)
        print(f"{time.strftime('%H:%M:%S')} {done.stdout}", flush=True)
        return done.returncode, done.stdout

    def submit(self, arguments: str) -> tuple[int, str]:
        return self.run(f"ray submit {CONFIG} tune/run.py {arguments}")


@pytest.fixture(scope="module")
def cluster(eggs_root) -> Iterator[Cluster]:
    lacking = missing()
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}")
    with Hosts(("laptop", *MACHINES)) as hosts:
        cluster = Cluster(hosts, _project(hosts))
        for name in MACHINES[:2]:  # each has the data on a disk of its own; the third gets it later
            shutil.copytree(eggs_root, hosts.own(name) / "mnt" / "eggs")
        code, said = cluster.run(f"ray up -y {CONFIG}")
        assert code == 0, said
        end = time.monotonic() + 400
        while said.count("\n  node_") + said.count("local.cluster.node") == 0 or "6.0 CPU" not in said:
            assert time.monotonic() < end, said
            time.sleep(5)
            said = cluster.run(f"ray exec {CONFIG} 'ray status'")[1].replace(f"{3 * os.cpu_count()}.0 CPU", "6.0 CPU")
        yield cluster


def _project(hosts: Hosts) -> Path:
    project = hosts.work / "project"
    left_out = shutil.ignore_patterns("__pycache__")
    for name in ("tune", "smolvla_core", "search_spaces"):
        shutil.copytree(ROOT / name, project / name, ignore=left_out)
    for name in ("pyproject.toml", "constraints.txt", "bootstrap.sh", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project / name)
    (project / "search_spaces" / "small.yaml").write_text(SEARCH)
    (project / "docker").mkdir()
    own = {
        "192.0.2.10": hosts.address("head"),
        "192.0.2.11": hosts.address("one"),
        "192.0.2.12": hosts.address("two"),
        "ssh_user: me": "ssh_user: root",
        "~/.ssh/id_ed25519": str(hosts.work / "key"),
        "cd ~/smolvla-tune && sh bootstrap.sh": f"sh {hosts.work}/setup.sh",
    }
    (project / CONFIG).write_text(_replaced((ROOT / CONFIG).read_text(), own))
    paths = {"/data/": "/mnt/", "/shared/": f"{hosts.work}/shared/"}
    (project / "docker/search.env").write_text(_replaced((ROOT / "docker/search.env").read_text(), paths))
    (hosts.work / "shared").mkdir()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python, packages = os.path.realpath(sys.executable), Path(ray.__file__).parents[1]
    (hosts.work / "setup.sh").write_text(SETUP.format(python=python, packages=packages, version=version))
    return project


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def test_a_yaml_that_the_head_lacks(cluster):
    code, said = cluster.submit("search_spaces/none.yaml")
    assert code
    assert (
        "error: search_spaces/none.yaml: no such file (looked in /home/search_spaces and /home/smolvla-tune/search_spa"
        in said
    )


def test_data_that_a_machine_lacks_is_said_before_the_search(cluster):
    code, said = cluster.submit("search_spaces/small.yaml")
    assert code
    assert f"/mnt/eggs: no such folder on {cluster.hosts.address('two')}; copy the dataset there" in said
    shutil.copytree(cluster.hosts.own("head") / "mnt" / "eggs", cluster.hosts.own("two") / "mnt" / "eggs")


def test_trials_run_on_every_machine_each_with_a_cache_of_its_own(cluster):
    code, said = cluster.submit("search_spaces/small.yaml")
    assert code == 0, said
    (folder,) = (cluster.hosts.work / "shared" / "runs").glob("small-*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["state"] == "complete"
    assert sum(summary["trials"].values()) == 3
    assert (folder / "best" / "model.safetensors").is_file()
    assert (folder / "report.html").is_file()
    results = [line for file in folder.glob("trials/*/results.jsonl") for line in file.read_text().splitlines()]
    hosts = {json.loads(line)["host"] for line in results}
    assert len(hosts) == len(MACHINES), hosts
    for name in MACHINES:
        assert list((cluster.hosts.own(name) / "home" / ".cache" / "smolvla_core" / "features").iterdir())


def test_a_job_brings_its_code_along(cluster):
    tunnel = f"ssh -N -o StrictHostKeyChecking=no -i {cluster.hosts.work}/key -L 8265:127.0.0.1:8265"
    head = cluster.hosts.address("head")
    open_tunnel = cluster.hosts.start("laptop", f"{tunnel} root@{head}", cluster.hosts.work / "tunnel.log")
    try:
        job = "ray job submit --address http://127.0.0.1:8265 --working-dir . -- python -m tune.run"
        end = time.monotonic() + 60
        while cluster.hosts.run("laptop", "exec 3<>/dev/tcp/127.0.0.1/8265").returncode:
            assert time.monotonic() < end
            time.sleep(0.2)
        code, said = cluster.run(f"{job} search_spaces/small.yaml --set storage=runs")
        assert code
        assert "lies in the working directory of a Ray job, which is deleted with the job; give an address" in said
        code, said = cluster.run(f"{job} search_spaces/small.yaml --set budget.trials=1")
        assert code == 0, said
        assert "succeeded" in said
    finally:
        open_tunnel.kill()


def test_a_storage_that_a_machine_does_not_see_is_said_before_the_search(cluster):
    code, said = cluster.submit("search_spaces/small.yaml -- --set storage=/mnt/runs")
    assert code
    assert "cannot use /mnt/runs: this machine's folder is not seen there; set it to a folder that every" in said


def test_the_cluster_is_taken_down(cluster):
    code, said = cluster.run(f"ray down -y {CONFIG}")
    assert code == 0, said
    assert "No nodes remaining" in said
