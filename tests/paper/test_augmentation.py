"""Section II-C: what the augmented version of an image is.

"We perform flip (horizontal and vertical) axis, rotation, random shift, and random zoom, gamma changing, and brightness
changing to get the augmented version of an image."
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torchvision.transforms.functional as TF
from torch import Tensor

from fedcervix.core.plan import Augment
from fedcervix.core.profiles import PROFILES
from site_agent.network.augmentation import PACKED, AugmentationDraws, augment, draw, join, pack, standardise, to_input

torch.set_num_threads(1)


def draws(count: int = 1, **given: object) -> AugmentationDraws:
    """`count` augmentations that do nothing, but for what is given."""
    values: dict[str, object] = {
        "flip_h": False, "flip_v": False, "angle_rad": 0.0, "zoom": 1.0,
        "shift_x": 0.0, "shift_y": 0.0, "gamma": 1.0, "brightness": 1.0,
    }  # fmt: skip
    tensors = {name: torch.as_tensor(value) for name, value in (values | given).items()}
    return AugmentationDraws(**{name: t if t.ndim else t.repeat(count) for name, t in tensors.items()})


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int, height: int, width: int) -> Tensor:
    """Images in (0, 1) without sharp edges, every one different and none symmetric."""
    coarse = torch.rand(count, 3, 5, 6, generator=seeded(7))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 0.8 + 0.1


def test_an_augmentation_that_does_nothing_returns_the_image() -> None:
    images = smooth(3, 20, 28)
    assert torch.allclose(augment(images, draws(3)), images, atol=1e-5)


def test_a_horizontal_flip_mirrors_left_and_right() -> None:
    images = smooth(1, 20, 28)
    assert torch.allclose(augment(images, draws(flip_h=True)), images.flip(3), atol=1e-5)


def test_a_vertical_flip_mirrors_top_and_bottom() -> None:
    images = smooth(1, 20, 28)
    assert torch.allclose(augment(images, draws(flip_v=True)), images.flip(2), atol=1e-5)


def test_a_right_angle_turns_a_square_image_clockwise() -> None:
    images = smooth(1, 24, 24)
    turned = augment(images, draws(angle_rad=math.pi / 2))
    assert torch.allclose(turned, torch.rot90(images, -1, dims=(2, 3)), atol=1e-4)


def test_an_oblong_image_is_turned_and_not_sheared() -> None:
    """A disc in the middle of an oblong image stays a disc."""
    y, x = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(80.0) - 39.5, indexing="ij")
    disc = torch.sigmoid(10 - torch.hypot(x, y)).expand(1, 3, 40, 80)
    assert torch.allclose(augment(disc, draws(angle_rad=0.6)), disc, atol=0.05)


def test_a_shift_moves_the_image_and_fills_the_gap_with_its_reflection() -> None:
    images = smooth(1, 20, 20)
    moved = augment(images, draws(shift_x=0.1, shift_y=-0.05))  # 2 px to the right, 1 px up
    assert torch.allclose(moved[:, :, :-1, 2:], images[:, :, 1:, :-2], atol=1e-5)
    assert torch.allclose(moved[:, :, :-1, :2], images[:, :, 1:, :2].flip(3), atol=1e-5)
    assert torch.allclose(moved[:, :, -1, 2:], images[:, :, -1, :-2], atol=1e-5)


def test_a_zoom_of_two_shows_the_middle_of_the_image_at_twice_its_size() -> None:
    images = smooth(1, 32, 32)
    zoomed = augment(images, draws(zoom=2.0))
    expected = torch.nn.functional.interpolate(images, scale_factor=2, mode="bilinear")[:, :, 16:48, 16:48]
    assert torch.allclose(zoomed, expected, atol=1e-5)


def test_gamma_is_an_exponent_and_brightness_a_factor_that_saturates() -> None:
    images = torch.full((1, 3, 4, 4), 0.25)
    assert torch.allclose(augment(images, draws(gamma=0.5)), torch.full_like(images, 0.5))
    assert torch.allclose(augment(images, draws(brightness=1.2)), torch.full_like(images, 0.3))
    assert torch.equal(augment(images, draws(gamma=0.5, brightness=3.0)), torch.ones_like(images))


def test_these_seven_and_no_others() -> None:
    """II-C names flips, rotation, shift, zoom, gamma and brightness; no colour jitter, no blur, no crop."""
    paper = dataclasses.asdict(PROFILES["paper"].recipe.augment)
    assert paper.pop("colour") == "free"
    ours = {key for key, value in paper.items() if value}  # 0 switches a key off
    flips, ranges = {"flip_horizontal", "flip_vertical"}, {"zoom_min", "zoom_max", "gamma_min", "gamma_max"}
    assert ours == flips | {"rotation_deg", "shift", "brightness"} | ranges


def test_the_packed_form_is_as_wide_as_it_says() -> None:
    assert pack(draws(3), 20, 28).shape == (3, PACKED)


def test_no_colour_jitter_a_grey_image_stays_grey() -> None:
    """II-C changes gamma and brightness, the same for all three channels: a hue is never shifted."""
    grey = smooth(16, 24, 24).mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    found = augment(grey, draw(16, Augment(), seeded(5)))
    assert torch.allclose(found[:, 0], found[:, 1], atol=1e-6)
    assert torch.allclose(found[:, 0], found[:, 2], atol=1e-6)


def test_no_blur_a_sharp_edge_stays_sharp() -> None:
    """II-C has no blur: where nothing moves, black beside white stays black beside white."""
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1
    found = augment(edge, draws(gamma=1.2, brightness=1.1))
    assert torch.allclose(found, edge, atol=1e-5)


def test_no_crop_the_whole_image_is_seen_again() -> None:
    """II-C has no crop-resize: at profile `paper` a zoom shows 1 / 1.1 of a side at least."""
    drawn = draw(10_000, Augment(), seeded(6))
    assert drawn.zoom.max() <= 1.1
    assert drawn.zoom.min() < 1, "half of them show more than the image: its reflected border"


def test_a_batch_is_augmented_as_torchvision_augments_each_image_by_itself() -> None:
    """Where neither reads beyond the border: the two fill it differently."""
    count, height, width = 8, 48, 64
    settings = Augment(rotation_deg=30.0, shift=0.15, zoom_min=0.8, zoom_max=1.4)
    drawn = draw(count, settings, seeded(3))
    images = smooth(count, height, width)
    ours = augment(images, drawn)
    compared = 0
    for i in range(count):
        one = images[i]
        for flipped, flip in ((drawn.flip_h, TF.hflip), (drawn.flip_v, TF.vflip)):
            one = flip(one) if flipped[i] else one
        move = {
            "angle": math.degrees(drawn.angle_rad[i]),
            "translate": [float(drawn.shift_x[i]) * width, float(drawn.shift_y[i]) * height],
            "scale": float(drawn.zoom[i]),
            "shear": [0.0],
            "interpolation": TF.InterpolationMode.BILINEAR,
        }
        inside = TF.affine(torch.ones_like(one), **move) > 0.99999
        one = TF.affine(one, **move)
        one = TF.adjust_brightness(TF.adjust_gamma(one, float(drawn.gamma[i])), float(drawn.brightness[i]))
        assert torch.allclose(ours[i][inside], one[inside], atol=1e-5)
        compared += int(inside.sum())
    assert compared > 0.5 * images.numel()


def test_every_image_of_a_batch_draws_its_own_parameters() -> None:
    same = smooth(1, 24, 24).repeat(2, 1, 1, 1)
    one, two = augment(same, draw(2, Augment(), seeded(0)))
    assert (one - two).abs().max() > 0.05


def test_the_border_is_the_reflected_image_and_never_black() -> None:
    bright = smooth(16, 24, 24) * 0.1 + 0.9
    wild = Augment(rotation_deg=180, shift=0.3, zoom_min=0.5, zoom_max=1, gamma_min=1, gamma_max=1, brightness=0)
    assert augment(bright, draw(16, wild, seeded(1))).min() > 0.89


def test_augmented_images_stay_in_range() -> None:
    harsh = Augment(gamma_min=0.1, gamma_max=10, brightness=0.9)
    found = augment(torch.rand(32, 3, 16, 16, generator=seeded(0)), draw(32, harsh, seeded(2)))
    assert found.min() >= 0
    assert found.max() <= 1


def test_parameters_are_uniform_over_the_ranges_of_the_recipe() -> None:
    """The magnitudes are not printed; those of profile `paper` are +-20 degrees, +-10 %, .9-1.1, .8-1.25, +-15 %."""
    drawn = draw(20_000, Augment(), seeded(11))
    limits = {
        "angle_rad": (-math.radians(20), math.radians(20)),
        "shift_x": (-0.10, 0.10),
        "shift_y": (-0.10, 0.10),
        "zoom": (0.9, 1.1),
        "brightness": (0.85, 1.15),
    }
    for name, (low, high) in limits.items():
        share = (getattr(drawn, name) - low) / (high - low)
        assert share.min() >= -1e-6, name
        assert share.max() <= 1 + 1e-6, name
        assert share.mean().item() == pytest.approx(0.5, abs=0.01), name
        assert share.std().item() == pytest.approx(math.sqrt(1 / 12), abs=0.01), name
    log_gamma = drawn.gamma.log()
    assert log_gamma.min().item() == pytest.approx(math.log(0.8), abs=1e-3)
    assert log_gamma.max().item() == pytest.approx(math.log(1.25), abs=1e-3)
    assert log_gamma.mean().item() == pytest.approx(0, abs=0.005)
    for flips in (drawn.flip_h, drawn.flip_v):
        assert flips.float().mean().item() == pytest.approx(0.5, abs=0.015)


def test_no_two_parameters_share_their_random_numbers() -> None:
    drawn = draw(20_000, Augment(), seeded(12))
    columns = [getattr(drawn, field.name).float() for field in dataclasses.fields(drawn)]
    columns = [column for column in columns if column.std() > 0]  # what is off is drawn nowhere
    assert len(columns) >= 8
    correlation = torch.corrcoef(torch.stack(columns)) - torch.eye(len(columns))
    assert correlation.abs().max() < 0.04


@pytest.mark.parametrize(
    ("key", "value", "parameter", "still"),
    [
        ("flip_horizontal", 0.0, "flip_h", False),
        ("flip_vertical", 0.0, "flip_v", False),
        ("rotation_deg", 0.0, "angle_rad", 0.0),
    ],
)
def test_a_switched_off_augmentation_stays_off(key: str, value: float, parameter: str, still: float) -> None:
    drawn = draw(100, dataclasses.replace(Augment(), **{key: value}), seeded(0))
    assert (getattr(drawn, parameter) == still).all()


def test_option_acetic_safe_what_is_white_beside_its_surroundings_stays_so() -> None:
    """Proportions of all colours in an image stay, between places and between channels, and none is cut off at white.

    Acetowhitening is such a proportion. Gamma changes it, and a brightness above 1 cuts off what is white already.
    """
    image = smooth(1, 12, 12).expand(200, -1, -1, -1) + 0.1  # nearly up to white
    still = {
        "flip_horizontal": 0.0,
        "flip_vertical": 0.0,
        "rotation_deg": 0.0,
        "shift": 0.0,
        "zoom_min": 1.0,
        "zoom_max": 1.0,
    }

    def proportions(colour: str) -> Tensor:
        settings = Augment(**still, colour=colour, gamma_min=0.5, gamma_max=2.0, brightness=0.4)  # type: ignore[arg-type]
        seen = augment(image, draw(200, settings, seeded(0)))
        assert (seen.amax(dim=(1, 2, 3)) <= 1).all()
        assert seen.mean(dim=(1, 2, 3)).std() > 0.05  # something is done
        return (seen / seen.mean(dim=(1, 2, 3), keepdim=True)).std(dim=0).amax()

    assert proportions("acetic-safe") < 1e-5
    assert proportions("free") > 0.1


def test_acetic_safe_draws_the_same_geometry() -> None:
    free, safe = (draw(50, Augment(colour=colour), seeded(3)) for colour in ("free", "acetic-safe"))  # type: ignore[arg-type]
    for name in ("flip_h", "flip_v", "angle_rad", "zoom", "shift_x", "shift_y"):
        assert torch.equal(getattr(free, name), getattr(safe, name))
    assert (safe.gamma == 1).all()
    assert ((safe.brightness >= 0.85) & (safe.brightness <= 1)).all()


def test_the_same_seed_draws_the_same_augmentations_and_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = draw(5, Augment(), seeded(4)), draw(5, Augment(), seeded(4))
    assert all(torch.equal(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_joined_draws_stand_behind_one_another_and_can_be_picked() -> None:
    joined = join([draws(zoom=1.0), draws(zoom=2.0), draws(zoom=3.0)])
    assert joined.zoom.tolist() == [1.0, 2.0, 3.0]
    assert joined.select(torch.tensor([2, 0])).zoom.tolist() == [3.0, 1.0]


def test_bytes_become_fractions_and_then_the_input_of_an_imagenet_network() -> None:
    """Black is -mean / std, white (1 - mean) / std, with ImageNet's mean and standard deviation."""
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).repeat(1, 4, 4, 3)
    images = to_input(pixels)
    assert images.shape == (2, 3, 4, 4)
    assert images.flatten(1).unique(dim=1).flatten().tolist() == [0.0, 1.0]
    black, white = standardise(images)[:, :, 0, 0]
    assert black.tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert white.tolist() == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])
