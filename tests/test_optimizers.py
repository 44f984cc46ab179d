"""Which optimizer has which parameter, what a step is, and that what is kept of it comes back."""

import pytest
import torch

from smolvla_core.config import OptimConfig
from smolvla_core.optimizers import Optimizers, is_layers_matrix
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial

MATRIX = "model.vlm_with_expert.lm_expert.layers.0.mlp.up_proj.weight"


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = {
        MATRIX: (6, 4),
        "model.vlm_with_expert.lm_expert.norm.weight": (4,),
        "model.action_in_proj.weight": (4, 3),
    }
    made = {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    for value in made.values():
        value.grad = torch.randn(value.shape, generator=generator)
    return made


def stepped(optimizer, values):
    optimizer.step()
    return [value.detach().clone() for value in values]


def test_adamw_alone_is_torchs_adamw():
    ours, theirs = parameters(), parameters()
    config = OptimConfig(lr=0.01, weight_decay=0.1)
    Optimizers(ours, config).step(0.003)
    reference = torch.optim.AdamW(theirs.values(), lr=0.003, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for found, expected in zip(ours.values(), stepped(reference, theirs.values()), strict=True):
        assert torch.allclose(found, expected, atol=1e-7)


def test_muon_moves_matrices_of_layers_and_adamw_the_rest():
    ours, theirs = parameters(), parameters()
    optimizers = Optimizers(ours, OptimConfig(optimizer="muon", lr=0.01, weight_decay=0.1))
    optimizers.step(0.003)
    matrix, *rest = theirs.values()
    muon = torch.optim.Muon([matrix], lr=0.003, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=0.003, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    expected = [*stepped(muon, [matrix]), *stepped(adamw, rest)]
    for found, wanted in zip(ours.values(), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-7)


def test_a_step_of_muon_is_as_large_as_one_of_adamw_and_turns_every_way():
    wide = {MATRIX: torch.nn.Parameter(torch.zeros(96, 64)), "bias": torch.nn.Parameter(torch.zeros(1))}
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(96, 64, generator=generator)
    gradient[:, 0] *= 10  # most of it is one direction
    wide[MATRIX].grad = gradient
    Optimizers(wide, OptimConfig(optimizer="muon", weight_decay=0.0)).step(1e-3)
    moved = wide[MATRIX].detach()
    assert moved.square().mean().sqrt() == pytest.approx(0.2e-3, rel=0.3)
    sizes = torch.linalg.svdvals(moved)
    assert torch.linalg.cond(gradient) > 30
    assert sizes[0] / sizes[-1] < 4


def test_what_is_kept_comes_back():
    for name in ("adamw", "muon"):
        first = parameters()
        optimizers = Optimizers(first, OptimConfig(optimizer=name))
        optimizers.step(1e-2)
        second = {key: torch.nn.Parameter(value.detach().clone()) for key, value in first.items()}
        restored = Optimizers(second, OptimConfig(optimizer=name))
        for key, value in first.items():
            restored.restore(second[key], {k: v.clone() for k, v in optimizers.state(value)})
            value.grad = torch.ones_like(value)
            second[key].grad = torch.ones_like(value)
        optimizers.step(1e-2)
        restored.step(1e-2)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_embeddings_and_projections_are_adamws(generic_root, cache_dir):
    values = {"policy__train_expert_only": False, "policy__freeze_vision_encoder": False}
    learner = prepare(tiny_trial(generic_root, cache_dir, optim__optimizer="muon", **values)).learner
    taken = {name for name, parameter in learner.trained.items() if is_layers_matrix(name, parameter)}
    for part in ("vision_model.encoder.layers.0", "text_model.layers.0", "lm_expert.layers.0"):
        assert any(part in name for name in taken), part
    assert not [name for name in taken if "embed" in name or "norm" in name or name.endswith("bias")]
    left = {name for name in learner.trained if name not in taken and learner.trained[name].ndim == 2}
    assert {"model.state_proj.weight", "model.action_in_proj.weight", "model.action_out_proj.weight"} <= left


def test_an_unknown_one_is_refused():
    with pytest.raises(ValueError, match="adamw"):
        OptimConfig(optimizer="sgd")
