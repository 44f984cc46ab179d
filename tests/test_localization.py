"""Locating objects: labels that lie on them, heat maps by hand, a gradient for the tower, no trace in the export."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from smolvla_core.checkpoint import export_policy, read_state, save_state
from smolvla_core.data.behavior import import_behavior
from smolvla_core.data.behavior.source import Keep
from smolvla_core.data.pictures import Camera
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.garden.instance import draw_instance
from smolvla_core.garden.record import Settings, record
from smolvla_core.localization import CELLS, RARE, SPREAD, Locator, heat_maps
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial
from tests.garden_fixtures import needs_pictures
from tests.test_train import assert_resumes_exactly_at_8, collect

FIRST, SIZE = 2, 64
GARDEN = {"objects": {"basket": [0], "eggs": [7, 14, 21], "trees": [28, 35, 42, 49]}}
FROZEN = {"policy__train_expert_only": True, "policy__freeze_vision_encoder": True}
LEARNS_TO_SEE = {"policy__train_expert_only": False, "policy__freeze_vision_encoder": False}


@pytest.fixture(scope="module")
def garden_root(tmp_path_factory):
    """Three episodes of the garden, with the poses of objects and cameras."""
    needs_pictures()
    folder = tmp_path_factory.mktemp("localization")
    record(folder / "raw", Settings(episodes=3, first_instance=FIRST, picture_size=SIZE))
    import_behavior(folder / "raw", folder / "lerobot", keep=Keep(privileged=True))
    return folder / "lerobot"


def garden_trial(root, cache_dir, task_info=GARDEN, **values):
    source = {"root": str(root)} | ({"task_info": task_info} if task_info else {})
    defaults = {"data__train": [source], "state__preset": "winner23", "eval__horizon_s": 0.3, **LEARNS_TO_SEE}
    defaults |= {"auxiliary__localization": 1.0}
    return tiny_trial(root, cache_dir, **{**defaults, **values})


def middles_of(colour, picture):
    """The mean place (u, v) of pixels (3, H, W) that have a colour, in any light; None where there are few."""
    pixels = picture.permute(1, 2, 0).numpy().astype(float)
    alike = pixels @ np.asarray(colour) / np.maximum(np.linalg.norm(pixels, axis=2) * np.linalg.norm(colour), 1e-9)
    v, u = np.nonzero((alike > 0.985) & (pixels.max(axis=2) > 60))
    return np.array([u.mean() + 0.5, v.mean() + 0.5]) / SIZE if len(u) > 6 else None


def test_labels_lie_on_the_eggs_in_the_recorded_pictures(garden_root, cache_dir):
    inputs = resolve(garden_trial(garden_root, cache_dir))
    dataset, places = inputs.dataset, inputs.places
    everywhere = places.uv(np.arange(len(dataset.state)))
    assert everywhere.shape == (len(dataset.state), 3, 8, 2)
    assert places.kinds == (0, 1, 1, 1, 2, 2, 2, 2)
    off = []
    for camera, view in enumerate(inputs.interface.cameras):
        rows = np.arange(0, len(dataset.state), 5)
        pictures = Camera(dataset, view.dataset_key).frames(rows)
        for row, picture in zip(rows, pictures, strict=True):
            colours = draw_instance(FIRST + int(dataset.episode[row])).egg_colours
            for egg, colour in enumerate(colours):
                found, said = middles_of(colour, picture), everywhere[row, camera, 1 + egg].numpy()
                # wicker is like some colours; near the edge a part of the egg is all there is
                if colour[1] < 0.4 and found is not None and (abs(said - 0.5) < 0.4).all():
                    off.append(np.linalg.norm(found - said) * SIZE)
    assert len(off) > 40
    assert np.median(off) < 1.5  # pixels


def test_what_is_behind_a_camera_is_nowhere(garden_root, cache_dir):
    inputs = resolve(garden_trial(garden_root, cache_dir))
    everywhere = inputs.places.uv(np.arange(len(inputs.dataset.state)))
    basket = everywhere[:, 0, 0]
    assert basket.isnan().any()  # the robot begins looking anywhere
    assert not basket.isnan().all()
    assert torch.equal(basket.isnan()[:, 0], basket.isnan()[:, 1])
    # trees that an instance does not have stand beyond what is drawn
    for episode, (start, length) in enumerate(zip(inputs.dataset.starts, inputs.dataset.lengths, strict=True)):
        trees = everywhere[start : start + length, 0, 4:]
        there = len(draw_instance(FIRST + episode).trees)
        drawn = ((trees > 0) & (trees < 1)).all(dim=2).any(dim=0)
        assert drawn[:there].any()
        assert not drawn[there:].any()


def test_heat_maps_by_hand():
    side = 2 * CELLS
    places = torch.full((1, 1, 3, 2), float("nan"))
    places[0, 0, 0] = torch.tensor([(CELLS + 2.5) / side, 0.5 / side])  # upper right token: column 2, row 0
    places[0, 0, 1] = torch.tensor([3.5 / side, (CELLS + 4.5) / side])  # lower left token: column 3, row 4
    maps = heat_maps(places, kinds=(0, 1, 1), count=2, tokens=2)
    assert maps.shape == (1, 1, 4, CELLS * CELLS * 2)
    squares = maps.view(4, CELLS, CELLS, 2)
    assert squares[1, 0, 2, 0] == squares[2, 4, 3, 1] == 1.0
    assert (squares == 1.0).sum() == 2
    aside = torch.exp(torch.tensor(-0.5 / SPREAD**2))
    assert squares[1, 0, 3, 0] == pytest.approx(aside.item())
    assert squares[1, 1, 3, 0] == pytest.approx(aside.item() ** 2)
    assert squares[2, 4, 4, 1] == pytest.approx(aside.item())
    assert squares[0, :, :, 1].max() < 1e-3
    # a mark goes on in the token beside its own
    edge = torch.tensor([[[[CELLS / side, 0.5 / side]]]])
    left, right, *_ = heat_maps(edge, kinds=(0,), count=1, tokens=2)[0, 0].view(4, CELLS, CELLS)
    assert left[0, -1] == right[0, 0] > 0.8


def test_losses_are_weighted_cross_entropies_of_every_cell():
    locator = Locator(width=16, kinds=2)
    tokens = [torch.randn(3, 4, 16) for _ in range(2)]
    places = torch.rand(3, 2, 5, 2)
    kinds = (0, 0, 1, 1, 1)
    found = locator.losses(tokens, places, kinds)
    target = heat_maps(places, kinds, 2, 2)
    said = torch.sigmoid(locator.layers(torch.stack(tokens, dim=1)))
    entropy = -(target * said.log() + (1 - target) * (1 - said).log()) * (1 + RARE * target)
    assert torch.allclose(found, entropy.mean(dim=(1, 2, 3)), rtol=1e-4)


def test_it_adds_its_share_to_the_towers_gradient_and_to_nothing_behind_it(garden_root, cache_dir):
    def gradients(weight):
        trial = prepare(garden_trial(garden_root, cache_dir, auxiliary__localization=weight))
        learner, taken = trial.learner, {}
        learner.optimizers.step = lambda lr: taken.update({n: p.grad.clone() for n, p in learner.trained.items()})
        return taken, learner.step(trial.training(0, 4), 1e-3)

    (off, plain), (once, located), (twice, again) = (gradients(weight) for weight in (0.0, 1.0, 2.0))
    assert plain.localization is None
    assert located.localization == again.localization > 0
    assert located.loss == plain.loss  # the flow-matching loss alone
    assert {name for name in once if name not in off} == {name for name in once if name.startswith("localization.")}
    changed = {name for name in off if not torch.allclose(off[name], once[name], rtol=1e-4, atol=1e-9)}
    assert changed
    assert all("vision_model" in name or "connector" in name for name in changed)
    name = next(name for name in changed if "patch_embedding.weight" in name)
    assert torch.allclose(twice[name] - once[name], once[name] - off[name], rtol=1e-2, atol=1e-7)


def test_it_learns_to_locate(garden_root, cache_dir):
    config = garden_trial(garden_root, cache_dir, optim__samples=320, optim__batch_size=16, optim__lr=3e-3)
    _, reports = collect(config.with_values({"runtime.log_every_samples": 80}))
    losses = [report["train/localization_loss"] for report in reports]
    assert losses[-1] < 0.8 * losses[0]


def test_micro_batches_and_a_dataset_without_labels(garden_root, eggs_root, cache_dir):
    """The locating loss is a mean over all samples of the step, whichever have labels."""
    beside = {"root": str(eggs_root)}
    both = [{"root": str(garden_root), "task_info": GARDEN}, beside]
    values = {"data__train": both}
    whole, parts = (
        prepare(garden_trial(garden_root, cache_dir, **values, **more)).learner
        for more in ({}, {"optim__micro_batch": 1})
    )
    trial = prepare(garden_trial(garden_root, cache_dir, **values))
    batch = trial.training(0, 8)
    assert [part.dataset for part in batch] == [0, 1]
    one, several = (learner.step(batch, 1e-3) for learner in (whole, parts))
    assert one.localization == pytest.approx(several.localization, rel=1e-5)
    with torch.no_grad():
        _, located = trial.learner.losses(batch[0], torch.ones(len(batch[0]), 1))
    assert one.localization == pytest.approx(located.sum().item() / 8, rel=1e-5)


def test_resume_is_exact_and_the_export_knows_nothing_of_it(garden_root, cache_dir, tmp_path):
    config = garden_trial(garden_root, cache_dir, eval__at=[8], optim__ema_decay=0.9)
    assert_resumes_exactly_at_8(config, tmp_path / "state")
    export_policy(tmp_path / "state", tmp_path / "policy")
    names = load_file(tmp_path / "policy" / "model.safetensors")
    assert not [name for name in names if "locali" in name]
    # and a policy's training can go on from it, with a new network beside
    trial = prepare(garden_trial(garden_root, cache_dir, policy__pretrained=str(tmp_path / "policy")))
    save_state(trial.learner, tmp_path / "next")
    assert read_state(tmp_path / "next")["config"]["auxiliary"] == {"localization": 1.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task_info": None}, "nothing says what is to be located; give the main dataset task_info"),
        ({"task_info": {"basket": [0, 3]}}, "nothing says what is to be located"),
        (
            {"policy__freeze_vision_encoder": True, "policy__train_expert_only": True},
            "the VLM is frozen, so that it would",
        ),
        ({"runtime__fast_forward": False}, "lerobot's own forward gives out no image tokens"),
        ({"task_info": {"objects": {"eggs": []}}}, "eggs must be the first dims of one object or more"),
        ({"task_info": {"frame": "robot"}}, "says nothing; give 'basket'"),
        ({"auxiliary__localization": -1.0}, "auxiliary.localization"),
    ],
)
def test_what_would_do_nothing_is_refused(cache_dir, values, message):
    with pytest.raises(ConfigError, match=message):
        garden_trial("/nowhere", cache_dir, **values)


def test_a_dataset_that_lacks_what_it_takes_is_refused(garden_root, eggs_root, privileged_root, cache_dir):
    wrong = {"objects": {"eggs": [54]}}
    with pytest.raises(ConfigError, match=r"names dims 54 to 56, the dataset's observation.task_info has 56"):
        resolve(garden_trial(garden_root, cache_dir, wrong))
    with pytest.raises(DataError, match=r"has no 'observation.task_info'.*import the dataset with --keep-privileged"):
        resolve(garden_trial(eggs_root, cache_dir))
    other = [
        {"root": str(garden_root), "task_info": GARDEN},
        {"root": str(privileged_root), "task_info": {"objects": {"toys": [0]}}},
    ]
    with pytest.raises(ConfigError, match=r"data.train.1: task_info.objects names toys; name the kinds of the main"):
        resolve(garden_trial(garden_root, cache_dir, data__train=other))
