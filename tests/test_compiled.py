"""A compiled step learns the same, is one graph, and is refused where nothing can be compiled."""

import copy
import shutil

import pytest
import torch
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_cache

from smolvla_core import compiled
from smolvla_core.errors import ConfigError
from smolvla_core.fast import encode_prefix, expert_errors
from smolvla_core.forward import FastForward, Passes, TrainedForward
from smolvla_core.train import main as train
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial
from tests.smolvla import CAMERAS, make_flow, make_inputs, make_policy
from tests.test_fast import UNFROZEN, VARIANTS, distance, flat, loss_and_gradients
from tests.test_learner import gradients, last_rows_batch


@pytest.fixture
def traced(monkeypatch):
    """The graphs that are traced, each run without generated kernels; a break in one is an error."""
    graphs = []
    compile_as_asked = torch.compile

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    def compile_whole(function, **asked):
        return compile_as_asked(function, backend=keep, fullgraph=True, **asked)

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", compile_whole)
    yield graphs
    torch.compiler.reset()


@pytest.fixture
def no_compiler(monkeypatch):
    """A machine without g++ on which nothing was compiled before."""
    torch.compiler.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    with fresh_cache():
        yield
    torch.compiler.reset()


@pytest.mark.parametrize("trained", [{}, *UNFROZEN.values()], ids=["nothing of the VLM", *UNFROZEN])
@pytest.mark.parametrize("name", ["as smolvla_base", "an empty camera", "an expert of half the layers"])
def test_each_pass_is_one_graph_that_serves_every_batch_of_its_shape(cache_dir, traced, name, trained):
    policy = make_policy(cache_dir, **VARIANTS[name], **trained)
    kind = TrainedForward if trained else FastForward
    passes = Passes(compiled.compiled(encode_prefix), compiled.compiled(expert_errors))
    rivals = [kind(policy), kind(copy.deepcopy(policy), passes=passes)]
    for seed in (1, 2):
        inputs = make_inputs(policy, seed=seed)
        inputs[f"{CAMERAS[1]}_padding_mask"] = torch.tensor([True, False, True])
        flow = make_flow(policy, 3, seed=seed)
        (loss, expected), (compiled_loss, found) = (loss_and_gradients(f, inputs, *flow) for f in rivals)
        assert compiled_loss == pytest.approx(loss, rel=1e-6)
        assert set(found) == set(expected)
        assert max(distance(found[name], expected[name]) for name in found if expected[name].norm() > 1e-6) < 1e-5
        with torch.no_grad():  # the graphs read the weights as they are
            for rival in rivals:
                for parameter in rival.policy.parameters():
                    if parameter.requires_grad:
                        parameter.mul_(1.1)
    assert len(traced) == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles")
def test_a_trial_learns_the_same_compiled(generic_root, cache_dir):
    values = {"policy__tiny__layers": 2, "policy__tiny__vision_layers": 1, "weighting__alpha": 2.0}
    trials = [prepare(tiny_trial(generic_root, cache_dir, runtime__compile=on, **values)) for on in (True, False)]
    assert "fast and exact, compiled" in trials[0].learner.forward_line
    (found, stats), (expected, reference) = (gradients(trial, last_rows_batch(trial)) for trial in trials)
    assert stats.loss == pytest.approx(reference.loss, rel=1e-5)
    assert distance(flat(found), flat(expected)) < 1e-5


def test_without_a_compiler_nothing_starts(generic_root, cache_dir, no_compiler, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"^runtime\.compile: torch cannot compile here \(.*\); install a C\+\+"):
        compiled.refuse_without_compiler(torch.device("cpu"))
    file, out = tmp_path / "trial.yaml", tmp_path / "out"
    file.write_text(tiny_trial(generic_root, cache_dir, runtime__compile=True).to_yaml())
    assert train([str(file), "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert "runtime.compile: torch cannot compile here" in error
    assert len(error.splitlines()) == 1


def test_only_the_fast_forward_is_compiled(generic_root, cache_dir):
    with pytest.raises(ConfigError, match="compile is of the fast forward"):
        tiny_trial(generic_root, cache_dir, runtime__compile=True, runtime__fast_forward=False)
