"""What is in docker/ is accepted by the programs that read it, and agrees with the rest of the project."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tune.run import main

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
CLUSTERS = ("cluster.yaml", "cluster.local.yaml")
BIN = Path(sys.executable).parent


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DOCKER / name).read_text())


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_takes_the_cluster(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(read(name))
    validate_config(prepared)
    head = prepared["head_node_type"]
    workers = {key: kind for key, kind in prepared["available_node_types"].items() if key != head}
    assert prepared["max_workers"] == 2 if name == "cluster.local.yaml" else workers["spot_gpu"]["max_workers"] == 8


@pytest.mark.parametrize("name", CLUSTERS)
def test_what_is_mounted_is_there_and_is_all_that_a_machine_needs(name):
    mounts = read(name)["file_mounts"]
    assert all((ROOT / here).exists() for here in mounts.values())
    assert all(there == f"~/smolvla-tune/{here}" for there, here in mounts.items())
    assert {"tune", "smolvla_core", "search_spaces"} <= set(mounts.values())
    assert {"docker", "docker/search.env"} & set(mounts.values())


def test_spot_machines_run_the_trials_and_the_head_outlives_them():
    kinds = read("cluster.yaml")["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in kinds["head"]["node_config"]
    assert kinds["spot_gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert kinds["spot_gpu"]["min_workers"] == 0


def test_the_environment_is_what_the_search_asks_for():
    given = dict(line.split("=", 1) for line in (DOCKER / "search.env").read_text().splitlines() if line[:1] not in "#")
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "search_spaces" / "easter_eggs.yaml").read_text()))
    assert asked == set(given)
    assert asked <= set(read("compose.yaml")["x-search"]["environment"])
    (container,) = read("kuberay.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert asked == {entry["name"] for entry in container["env"]}


def test_kubernetes_takes_the_pods():
    import kubernetes_validate

    job = read("kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    # the fields of KubeRay's API reference, ray.io/v1
    assert set(job["spec"]) <= {
        "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
        "rayClusterSpec", "runtimeEnvYAML", "activeDeadlineSeconds", "submitterPodTemplate", "suspend",
    }  # fmt: skip
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) <= {
        "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"
    }  # fmt: skip
    assert cluster["rayVersion"] == pinned("ray")
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.33", strict=True)
        spec = pod["spec"]
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
        assert spec["securityContext"]["runAsNonRoot"]
    (gpu,) = cluster["workerGroupSpecs"]
    (container,) = gpu["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert gpu["minReplicas"] <= gpu["replicas"] <= gpu["maxReplicas"]


def test_compose_takes_the_services():
    import compose_spec

    filled = re.sub(r"\$\{\w+:\?[^}]*\}", "/value", json.dumps(read("compose.yaml")))
    compose_spec.PyCompose.from_json(filled)  # its anchors are YAML's, and resolved by then
    services = read("compose.yaml")["services"]
    assert set(services) == {"postgres", "mlflow", "head", "worker-gpu", "worker-cpu"}
    volumes = set(read("compose.yaml")["volumes"])
    for name, service in services.items():
        assert "healthcheck" in service, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert set(service.get("depends_on", ())) <= set(services)
        named = {volume.partition(":")[0] for volume in service["volumes"] if not volume.startswith(("$", "/"))}
        assert named <= volumes


def test_the_entry_point_of_the_job_is_a_search(capsys, monkeypatch):
    for entry in read("compose.yaml")["x-search"]["environment"].items():
        monkeypatch.setenv(*entry)
    entry = shlex.split(read("kuberay.yaml")["spec"]["entrypoint"])
    assert entry[:3] == ["python", "-m", "tune.run"]
    assert main([*entry[3:], "--set", "study=a b"]) == 2  # read, and refused for this alone
    assert "study: got 'a b'" in capsys.readouterr().err


def test_linters_have_nothing_to_say():
    said = subprocess.run([BIN / "hadolint", DOCKER / "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")
    rules = {"line-length": {"max": 120}, "comments": {"min-spaces-from-content": 1}}
    rules |= dict.fromkeys(("document-start", "comments-indentation"), "disable")
    style = yaml.safe_dump({"extends": "default", "rules": rules})
    lint = [sys.executable, "-m", "yamllint", "--strict", "-d", style, *sorted(DOCKER.glob("*.yaml"))]
    said = subprocess.run(lint, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_image_is_given_what_its_build_needs_and_no_secret():
    copied = {name for line in lines("COPY") for name in line.split()[2:-1]}
    assert {"pyproject.toml", "constraints.txt", "tune", "smolvla_core", "search_spaces"} <= copied
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert allowed[0] == "*"
    assert {f"!{name}" for name in copied} <= set(allowed)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.search(r"-e '\.\[([\w,]+)\]'", (DOCKER / "Dockerfile").read_text())[1].split(",")
    assert set(asked) <= set(extras)
    assert lines("USER") == ["USER 1000:1000"]
    text = "".join(path.read_text() for path in DOCKER.iterdir())
    assert not re.search(r"(?i)(aws_secret_access_key|password)\s*[=:]\s*[\"']?\w{4}", text)


def lines(instruction: str) -> list[str]:
    return [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if line.startswith(instruction)]


def pinned(package: str) -> str:
    return re.search(rf"^{package}==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
