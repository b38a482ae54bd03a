"""EfficientNet-lite0: the network and the ImageNet weights of two published packages, answer for answer."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_sample_images
from torch import Tensor

from fedcervix.core.plan import Recipe
from fedcervix.errors import ConfigError, ModelError
from site_agent.network.augmentation import standardise, to_input
from site_agent.network.encoder import Encoder, build_encoder, snapshot
from site_agent.network.first_weights import load_imagenet, start_encoder
from site_agent.network.imagenet_package import FILE, PACKAGE, installed

LITE0 = Recipe(architecture="efficientnet_lite0", start="imagenet", image_px=64, width=16)
SIDES = (64, 77, 128)
"""77: padding that is not the same before and behind has another side at odd sizes"""


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return start_encoder(LITE0, seed=0, download=False)


def published(side_px: int, **kept: float) -> EfficientNet:
    """The package's own network for images of this side, with its own weights."""
    network = EfficientNet.from_name("efficientnet-lite0", image_size=side_px, drop_connect_rate=0.0, **kept)
    network.load_state_dict(torch.load(installed(), weights_only=True))
    return network


def photographs(side_px: int) -> Tensor:
    """A temple and a flower (scikit-learn's samples), (2, S, S, 3) bytes."""
    found = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(found[:, :, :426, 100:526], side_px, mode="area")
    return small.round().byte().permute(0, 2, 3, 1)


def entering(encoder: Encoder, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of images, and what the network made of them before its first convolution."""
    seen: list[Tensor] = []
    stem = encoder.backbone.get_submodule("_conv_stem")
    handle = stem.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    features = encoder.features(standardise(to_input(pixels)))
    handle.remove()
    return features, seen[0]


@pytest.mark.parametrize("side_px", SIDES)
def test_features_are_those_of_the_published_network(encoder: Encoder, side_px: int) -> None:
    with torch.no_grad():
        ours, prepared = entering(encoder.eval(), photographs(side_px))
        theirs = published(side_px).eval().extract_features(prepared).mean(dim=(2, 3))
    assert ours.shape == (2, 1280)
    assert theirs.abs().max() > 1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_network_is_given_what_its_weights_were_trained_on(encoder: Encoder) -> None:
    pixels = photographs(64)
    with torch.no_grad():
        _, prepared = entering(encoder.eval(), pixels)
    torch.testing.assert_close(prepared, (pixels.permute(0, 3, 1, 2).float() - 127) / 128, rtol=0, atol=1e-6)


def test_a_training_step_changes_weights_and_statistics_as_in_the_published_network(encoder: Encoder) -> None:
    """Epsilon of batch norm shows here; its momentum is the ResNets' (as published it is .99 of what was)."""
    trained, other = copy.deepcopy(encoder).train(), published(64, batch_norm_momentum=0.9).train()
    ours, prepared = entering(trained, photographs(64))
    ours.square().mean().backward()
    other.extract_features(prepared).mean(dim=(2, 3)).square().mean().backward()
    buffers, gradients = dict(other.named_buffers()), {name: p.grad for name, p in other.named_parameters()}
    for name, buffer in trained.backbone.state_dict().items():
        if name in buffers:
            torch.testing.assert_close(buffer, buffers[name], rtol=1e-5, atol=1e-6)
    for name, parameter in trained.backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_every_tensor_has_the_name_of_the_published_file(encoder: Encoder) -> None:
    theirs = torch.load(installed(), weights_only=True)
    ours = {name.removeprefix("backbone."): tensor for name, tensor in snapshot(encoder).items()}
    assert {name for name in ours if not name.startswith("head.")} == theirs.keys() - {"_fc.weight", "_fc.bias"}
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items() if not name.startswith("_fc."))


def test_the_head_is_random_and_of_the_seed(encoder: Encoder) -> None:
    assert torch.equal(encoder.head[0].weight, build_encoder(LITE0, seed=0).head[0].weight)
    assert encoder(standardise(to_input(photographs(64)))).shape == (2, 16)


def test_the_input_is_as_wide_as_in_the_training_of_these_weights(encoder: Encoder) -> None:
    """(pixel - 127) / 128: ImageNet's mean and deviation, which the package's page shows, give 5 times the variance."""
    stem, norm = (encoder.backbone.get_submodule(name) for name in ("_conv_stem", "_bn0"))
    with torch.no_grad():
        _, prepared = entering(encoder.eval(), photographs(224))
        ratio = (stem(prepared).var(dim=(0, 2, 3)) / norm.running_var).log().median().exp()
    assert 0.5 < ratio < 2


def test_random_weights_keep_the_scale_of_what_passes_through() -> None:
    features = (
        build_encoder(dataclasses.replace(LITE0, start="random"), seed=1)
        .train()
        .features(standardise(to_input(photographs(64))))
    )
    assert 0.05 < float(features.detach().std()) < 5


@pytest.mark.gpu
def test_features_on_a_gpu_are_those_on_a_cpu(encoder: Encoder) -> None:
    images = standardise(to_input(photographs(64)))
    with torch.no_grad():
        on_cpu = encoder.eval().features(images)
        on_gpu = copy.deepcopy(encoder).cuda().features(images.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)


def test_without_the_extra_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ConfigError, match=rf"{PACKAGE} is not installed; next: .*pip install .*\[imagenet\]"):
        load_imagenet(build_encoder(LITE0, seed=0), None)


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / PACKAGE / FILE
    changed.parent.mkdir(parents=True)
    changed.write_bytes(installed().read_bytes()[:-1] + b"?")
    (tmp_path / PACKAGE / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="is not the file that was published") as caught:
        installed()
    assert "pip install" in caught.value.next_step


def test_a_file_that_is_named_is_taken_and_one_of_another_network_is_refused(tmp_path: Path) -> None:
    shutil.copy(installed(), named := tmp_path / "lite0.pth")
    assert load_imagenet(build_encoder(LITE0, seed=0), named).tensors == 294
    with pytest.raises(ModelError, match=r"lite0\.pth does not fit this model"):
        load_imagenet(build_encoder(dataclasses.replace(LITE0, architecture="resnet18"), seed=0), named)
