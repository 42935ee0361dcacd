"""Each stage trains for real, on tiny networks: losses fall, checkpoints continue, frozen parts stay."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from difficmh.taggers.lite0 import load_lite0
from difficmh.training import trainer as trainer_module
from difficmh.training.data import CROP, CropSource, TrainingData
from difficmh.training.discriminator import adversarial_shares
from difficmh.training.features import FAR, FrozenFeatures, RandomView, view_loss
from difficmh.training.image_tags import learned_vocabulary
from difficmh.training.job import TrainingJob
from difficmh.training.klt import initialize
from difficmh.training.losses import one_step
from difficmh.training.optimizer import FINAL_SHARE, GuardedOptimizer, MovingAverage
from difficmh.training.run import trainable
from difficmh.training.settings import LossSettings
from difficmh.training.trainer import Trainer, averaged_state
from tests.difficmh.tiny_capsule import CONFIG, photograph

DEFAULTS = LossSettings()


@pytest.fixture(scope="module")
def source() -> CropSource:
    return CropSource([photograph(200, 260, seed) for seed in range(4)] + [photograph(100, 120)], "cpu")


def trainer(
    source: CropSource, stage: str, output: Path, minutes: float = 1.0, settings: LossSettings = DEFAULTS
) -> Trainer:
    torch.manual_seed(0)
    model = trainable(CONFIG)
    initialize(model, source, 0, batches=1)
    tags = torch.zeros(len(source), 3, dtype=torch.uint8)
    validation = source.batch(2, CROP, torch.Generator().manual_seed(1))[0]
    job = TrainingJob((), output, stage, minutes, batch=2, learning_rate=5e-3, settings=settings)
    return Trainer(model, TrainingData(source, tags, validation), job)


def run_steps(trainer: Trainer, count: int, progress: float = 0.5) -> list[float]:
    return [trainer.stage.step(trainer._batch(), progress, trainer.generator)["loss"] for _ in range(count)]


def repeat_batch(trainer: Trainer, count: int) -> list[float]:
    """Losses of `count` steps on one batch with the same noise in each, so that only the weights differ."""
    batch, losses = trainer._batch(), []
    for _ in range(count):
        torch.manual_seed(0)
        losses.append(trainer.stage.step(batch, 0.0, torch.Generator().manual_seed(0))["loss"])
    return losses


@pytest.mark.parametrize("stage", ["rate_distortion", "decoder", "diffusion", "one_step"])
def test_a_stage_learns(source: CropSource, tmp_path: Path, stage: str) -> None:
    losses = repeat_batch(trainer(source, stage, tmp_path), 20)
    assert all(math.isfinite(loss) for loss in losses)
    # Little of the loss can fall in so few steps: of the stage `decoder`, most is bits, which stay as they are.
    assert sum(losses[-3:]) < 0.998 * sum(losses[:3])


@pytest.mark.parametrize(
    ("stage", "changes", "kept"),
    [
        ("rate_distortion", {"g_a", "h_a", "entropy", "rate", "g_s"}, {"denoiser", "autoencoder"}),
        ("decoder", {"g_s"}, {"g_a", "h_a", "entropy", "rate", "denoiser", "autoencoder"}),
        ("diffusion", {"denoiser", "g_s"}, {"g_a", "h_a", "entropy", "rate", "autoencoder"}),
        ("one_step", {"denoiser", "autoencoder"}, {"g_a", "h_a", "entropy", "rate", "g_s"}),
    ],
)
def test_stages_change_what_they_say(
    source: CropSource, tmp_path: Path, stage: str, changes: set[str], kept: set[str]
) -> None:
    training = trainer(source, stage, tmp_path)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    run_steps(training, 3)
    assert torch.equal(training.model.autoencoder.basis.weight, before["autoencoder.basis.weight"])
    changed = {
        name.split(".")[0] for name, value in training.model.state_dict().items() if (value != before[name]).any()
    }
    assert changes <= changed
    assert not changed & kept


@pytest.mark.parametrize(
    ("stage", "setting", "values"),
    [
        ("rate_distortion", "mse_share", (0.0, 1.0)),
        ("rate_distortion", "means", (0.0, 5.0)),
        ("rate_distortion", "codec_features", (0.0, 40.0)),
        ("diffusion", "semantic", (0.0, 5.0)),
        ("rate_distortion", "far", (0.0, 1.0)),
        ("one_step", "far", (0.0, 1.0)),
        ("one_step", "adversarial", (0.0, 5.0)),
        ("one_step", "grid", (0.0, 2000.0)),
        ("one_step", "teacher", (0.0, 5.0)),
        ("one_step", "rehearsal", (0.0, 5.0)),
    ],
)
def test_a_weight_changes_what_is_learned(
    source: CropSource, tmp_path: Path, stage: str, setting: str, values: tuple[float, float]
) -> None:
    learned = []
    for value in values:
        training = trainer(source, stage, tmp_path, settings=LossSettings().changed([f"{setting}={value}"]))
        torch.manual_seed(0)
        run_steps(training, 2)
        learned.append(torch.cat([weight.flatten() for weight in training.model.parameters()]))
    assert not torch.equal(*learned)


def test_the_guide_is_the_latent_of_the_preview(source: CropSource, tmp_path: Path) -> None:
    """Whatever is trained: guide latents and those of originals lie in one space."""
    training = trainer(source, "rate_distortion", tmp_path)
    run_steps(training, 5)
    model, quality = training.model, torch.tensor([2])
    with torch.no_grad():
        y, _ = model.analyze(source.batch(1, 192, torch.Generator().manual_seed(5))[0], quality)
        guide, preview = model.guide(y.round(), quality), model.preview(y.round(), quality)
    assert torch.equal(guide, model.autoencoder.encode(preview))


def test_the_untrained_control_branch_returns_the_guide(source: CropSource, tmp_path: Path) -> None:
    training = trainer(source, "one_step", tmp_path)
    guide = torch.randn(1, CONFIG.latent_channels, 8, 8)
    with torch.no_grad():
        drawn = one_step(training.model, guide, torch.zeros(1, 3), torch.Generator().manual_seed(0))
        plain = training.model.draw(guide)
    # Pure noise still carries alpha_bar = 0.5 % of the signal's place.
    assert (drawn - plain).abs().mean() < 0.1 * plain.std()


def test_the_feature_network_meets_the_grid_of_the_decoder_anywhere_and_at_many_sizes() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.arange(96.0).expand(1, 3, 96, 96)
    views = [RandomView(image.shape, generator) for _ in range(300)]
    assert {view.window[3].start for view in views} == set(range(32))
    sides = {view(image).shape[-1] for view in views}
    assert min(sides) in range(48, 52)
    assert max(sides) in range(61, 65)
    assert len(sides) > 10


def test_a_far_view_shows_the_picture_as_a_detector_gets_it() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 192, 192)
    sides = {RandomView(image.shape, generator, FAR)(image).shape[-1] for _ in range(200)}
    assert min(sides) in range(56, 60)
    assert max(sides) in range(115, 121)
    smallest = RandomView(torch.Size((1, 3, 96, 96)), generator, (0.1, 0.1))
    assert smallest(image[..., :96, :96]).shape[-1] > 32


def test_lost_shapes_weigh_more_from_afar_and_lost_texture_from_near() -> None:
    """A blur by a pixel is nothing in a frame that is reduced to a third; a shifted object is."""
    network = FrozenFeatures(load_lite0())
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 12, 12, generator=generator).repeat_interleave(16, 2).repeat_interleave(16, 3)
    fine = image + 0.1 * torch.randn(1, 3, 192, 192, generator=generator)
    shifted = fine.roll(16, dims=3)

    def lost(decoded: torch.Tensor, sizes: tuple[float, float]) -> float:
        return float(view_loss(network, RandomView(fine.shape, generator, sizes), fine, decoded).mean())

    near, far = (1.0, 1.0), (0.35, 0.35)
    assert lost(image, far) / lost(shifted, far) < 0.7 * lost(image, near) / lost(shifted, near)


def test_the_adversarial_part_fades_out_with_the_rate() -> None:
    shares = adversarial_shares((0.0001, 0.00025, 0.001, 0.004, 0.0075, 0.02, 0.05))
    assert shares[:2].tolist() == [1, 1]
    assert shares[4:].tolist() == pytest.approx([0.1] * 3)
    assert all(0.1 < later < earlier < 1 for earlier, later in pairwise(shares[1:5][1:3].tolist()))


def test_a_view_shows_the_same_of_every_picture_and_no_hatching_when_small() -> None:
    view = RandomView(torch.Size((1, 3, 96, 96)), torch.Generator().manual_seed(0))
    view.scale = 0.75
    ramp = torch.arange(96.0).expand(1, 3, 96, 96)
    assert torch.equal(view(ramp), view(ramp.clone()))
    assert view(ramp)[0, 0, 24, 24].item() == pytest.approx(view.window[3].start + 32.2, abs=1)
    hatching = (torch.arange(96)[:, None] + torch.arange(96)).remainder(2).expand(1, 3, 96, 96) - 0.5
    assert hatching.abs().mean() == 0.5
    assert view(hatching)[..., 4:-4, 4:-4].abs().mean() < 0.15


def test_a_checkpoint_continues_where_it_stopped(source: CropSource, tmp_path: Path) -> None:
    first = trainer(source, "rate_distortion", tmp_path)
    run_steps(first, 3)
    first.average.update(first.model)
    first.save()
    ahead = run_steps(first, 3)
    second = trainer(source, "rate_distortion", tmp_path)
    second.resume()
    assert run_steps(second, 3) == pytest.approx(ahead, rel=1e-5)


def test_workers_go_on_apart(source: CropSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint holds the first one's generator: whoever resumes from it must not draw the same crops."""

    def worker(rank: int) -> Trainer:
        with monkeypatch.context() as patch:
            patch.setattr(trainer_module, "in_parallel", lambda: True)
            patch.setattr(trainer_module.distributed, "get_rank", lambda: rank)
            patch.setattr(trainer_module.distributed, "get_world_size", lambda: 2)
            patch.setattr(trainer_module.distributed, "broadcast", lambda *_: None)
            return trainer(source, "rate_distortion", tmp_path)

    first = worker(0)
    first.save()
    ahead = first._batch().images
    for rank, alike in ((0, True), (1, False)):
        again = worker(rank)
        again.resume()
        assert torch.equal(again._batch().images, ahead) == alike
    assert first.record.batch == 4


def test_training_ends_with_its_budget_and_validates(
    source: CropSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = trainer(source, "rate_distortion", tmp_path, minutes=0.02)
    training.run()
    assert training.progress == 1
    printed = capsys.readouterr().out
    assert "quality 6" in printed
    assert "full PSNR" in printed
    assert printed.splitlines()[-1] == f"{training.steps} steps, {training.minutes:.2f} of 0.02 minutes"
    config, weights = averaged_state(training.job.checkpoint)
    assert config["latent_channels"] == CONFIG.latent_channels
    assert set(weights) == set(training.model.state_dict())


def test_a_spent_budget_is_said(source: CropSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = trainer(source, "rate_distortion", tmp_path)
    first.steps, first.seconds = 7, 60.0
    first.save()
    again = trainer(source, "rate_distortion", tmp_path)
    again.run()
    assert again.steps == 7
    assert capsys.readouterr().out.splitlines()[-1] == "nothing left of 1 minutes: give more --minutes"


def test_a_stage_does_not_go_on_with_other_tags(source: CropSource, tmp_path: Path) -> None:
    first = trainer(source, "rate_distortion", tmp_path)
    first.vocabulary = ("bus", "car", "tree")
    first.save()
    assert learned_vocabulary(first.job.checkpoint) == ("bus", "car", "tree")
    first.resume()
    first.vocabulary = ("bus", "cow", "tree")
    with pytest.raises(ValueError, match="trained for other tags"):
        first.resume()


def test_an_outlier_is_skipped() -> None:
    layer = nn.Linear(2, 1, bias=False)
    optimizer = GuardedOptimizer(layer.named_parameters(), 1e-2)
    for _ in range(30):
        optimizer.step(layer(torch.ones(1, 2)).sum(), 0.0)
    before = layer.weight.clone()
    optimizer.step(1e6 * layer(torch.ones(1, 2)).sum(), 0.0)
    optimizer.step(torch.tensor(float("nan")) * layer(torch.ones(1, 2)).sum(), 0.0)
    assert torch.equal(layer.weight, before)
    assert optimizer.skipped == 2


def test_the_rate_rises_slowly_where_a_budget_was_raised() -> None:
    """The share of the budget that is spent falls from one to a half when the budget is doubled."""
    layer = nn.Linear(2, 1, bias=False)
    optimizer = GuardedOptimizer(layer.named_parameters(), 1e-2)
    shares = []
    for progress in [0.0] * 150 + [1.0] * 3 + [0.5] * 60:
        optimizer.step(layer(torch.ones(1, 2)).sum(), progress)
        shares.append(optimizer.share)
    rises = [after - before for before, after in pairwise(shares)]
    assert max(rises) == pytest.approx(0.01)
    assert shares[0] == pytest.approx(0.01)
    assert shares[149] == 1
    assert shares[152] == pytest.approx(FINAL_SHARE)
    assert shares[-1] == pytest.approx(FINAL_SHARE + (1 - FINAL_SHARE) / 2)


def test_the_average_follows() -> None:
    layer = nn.Linear(1, 1)
    average = MovingAverage(layer, decay=0.9)
    with torch.no_grad():
        layer.weight.fill_(5.0)
    for _ in range(200):
        average.update(layer)
    assert average.values["weight"].item() == pytest.approx(5.0, abs=1e-3)


def test_crops_come_from_every_image_in_range(source: CropSource) -> None:
    images, chosen = source.batch(64, 192, torch.Generator().manual_seed(0))
    assert images.shape == (64, 3, 192, 192)
    assert 0 <= images.min() <= images.max() <= 1
    assert set(chosen.tolist()) == set(range(5))
