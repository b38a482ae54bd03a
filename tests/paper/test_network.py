"""Section III-B: the network, and its weights as bytes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedcervix.core.plan import Head, Recipe
from fedcervix.errors import ModelError
from site_agent.network.encoder import (
    apply_weights,
    backbone_state,
    build_encoder,
    feature_count,
    load_weights,
    save_weights,
    snapshot,
)
from site_agent.network.first_weights import load_imagenet, start_encoder

torch.set_num_threads(1)

SMALL = Recipe(architecture="resnet18", image_px=32, width=16)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_papers_network_has_23_639_168_parameters_and_53_120_batch_norm_values() -> None:
    """ResNet-50 "the top 1000-way classification layer is removed" and a dense layer of 64: 94.6 MB in float32."""
    encoder = build_encoder(Recipe(), seed=0)
    assert sum(p.numel() for p in encoder.parameters()) == 23_639_168
    buffers = {name: b for name, b in encoder.named_buffers() if not name.endswith("num_batches_tracked")}
    assert sum(b.numel() for b in buffers.values()) == 53_120
    assert round(sum(4 * p.numel() for p in encoder.parameters()) / 1e6, 1) == 94.6
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("width", [64, 128, 256])
def test_the_dense_layer_is_a_relu_of_64_128_or_256_units(width: int) -> None:
    """III-B: "a dense layer with a ReLU activation [...] serves as the image representation vector"."""
    encoder = build_encoder(dataclasses.replace(SMALL, width=width, normalise=False), seed=0).eval()
    assert [type(layer) for layer in encoder.head] == [nn.Linear, nn.ReLU]
    f = encoder(images())
    assert f.shape == (4, width)
    assert f.min() == 0
    assert f.max() > 0


def test_representations_are_scaled_after_the_relu() -> None:
    """Where II-A is silent: what Eq. 1 multiplies is the dense layer's output, ReLU and all, at unit length."""
    f = build_encoder(SMALL, seed=0)(images())
    assert f.min() == 0
    raw = build_encoder(dataclasses.replace(SMALL, normalise=False), seed=0)(images())
    assert torch.allclose(f, raw / raw.norm(dim=1, keepdim=True), atol=1e-6)


def test_the_1000_way_layer_is_gone() -> None:
    """III-B: "the top 1000-way classification layer is removed": nothing below the dense layer has 1000 outputs."""
    state = build_encoder(Recipe(), seed=0).state_dict()
    assert not [name for name in state if ".fc." in name]
    assert all(1000 not in tensor.shape for tensor in state.values())


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_other_heads_may_be_negative(head: Head) -> None:
    f = build_encoder(dataclasses.replace(SMALL, head=head), seed=0)(images())
    assert f.shape == (4, 16)
    assert f.min() < 0


@pytest.mark.parametrize("head", ["relu", "linear", "mlp"])
def test_representations_have_unit_length(head: Head) -> None:
    f = build_encoder(dataclasses.replace(SMALL, head=head), seed=0)(images())
    assert torch.allclose(f.norm(dim=1), torch.ones(4), atol=1e-5)


def test_a_dead_head_gives_zero_rows_and_no_nan() -> None:
    encoder = build_encoder(SMALL, seed=0)
    with torch.no_grad():
        encoder.head[0].bias.fill_(-1e6)
    f = encoder(images())
    f.sum().backward()
    assert torch.equal(f, torch.zeros(4, 16))
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("architecture", "count"), [("resnet18", 512), ("resnet50", 2048), ("efficientnet_lite0", 1280)]
)
def test_the_classifier_is_built_on_the_features_below_the_dense_layer(architecture: str, count: int) -> None:
    encoder = build_encoder(dataclasses.replace(SMALL, architecture=architecture), seed=0).eval()
    assert encoder.features(images(1)).shape == (1, count)
    assert feature_count(architecture) == count  # type: ignore[arg-type]


def test_the_backbones_state_is_all_but_the_dense_layer() -> None:
    """III-B: "For preparing the classification model, we remove the dense layer"."""
    state = build_encoder(SMALL, seed=0).state_dict()
    assert set(state) - set(backbone_state(state)) == {"head.0.weight", "head.0.bias"}


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    one = build_encoder(SMALL, seed=5).state_dict()
    torch.manual_seed(2)
    assert equal(one, build_encoder(SMALL, seed=5).state_dict())
    assert not equal(one, build_encoder(SMALL, seed=6).state_dict())


def test_building_a_model_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    build_encoder(SMALL, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_saved_weights_come_back_equal_and_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    encoder = build_encoder(SMALL, seed=0)
    digest = save_weights(tmp_path / "a.safetensors", encoder.state_dict())
    encoder.to(memory_format=torch.channels_last)
    assert save_weights(tmp_path / "b.safetensors", encoder.state_dict()) == digest
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert equal(load_weights(tmp_path / "a.safetensors"), snapshot(encoder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_loaded_weights_are_counted() -> None:
    given = snapshot(build_encoder(SMALL, seed=1))
    encoder = build_encoder(SMALL, seed=0)
    loaded = apply_weights(encoder, given, what="a test")
    assert loaded.tensors == loaded.of == len(given)
    assert equal(snapshot(encoder), given)


def test_weights_that_do_not_fit_are_refused_whole_and_the_message_says_where() -> None:
    encoder = build_encoder(SMALL, seed=0)
    before = snapshot(encoder)
    given = snapshot(build_encoder(dataclasses.replace(SMALL, width=8), seed=1))
    given["extra"] = torch.zeros(1)
    del given["backbone.conv1.weight"]
    with pytest.raises(ModelError) as caught:
        apply_weights(encoder, given, what="the model of round 7")
    message = caught.value.what
    assert "the model of round 7" in message
    assert "backbone.conv1.weight is missing" in message
    assert "extra is not part of it" in message
    assert "head.0.bias is (8,), not (16,)" in message
    assert "(and 1 more)" in message
    assert equal(snapshot(encoder), before)


def test_weights_of_another_type_are_refused() -> None:
    encoder = build_encoder(SMALL, seed=0)
    given = snapshot(encoder) | {"head.0.bias": torch.zeros(16, dtype=torch.float64)}
    with pytest.raises(ModelError, match=r"head.0.bias is torch.float64, not torch.float32"):
        apply_weights(encoder, given, what="a test")


@pytest.mark.parametrize("content", [None, b"", b"not weights at all, whatever the name says"])
def test_a_missing_or_foreign_weights_file_is_a_model_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_weights(path)


def torchvision_style(seed: int) -> dict[str, Tensor]:
    """The state of a ResNet-18 with its 1000-way layer, as torchvision names it, and without step counters."""
    state = backbone_state(snapshot(build_encoder(SMALL, seed)))
    bare = {n.removeprefix("backbone."): t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    return bare | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_imagenets_weights_fill_the_backbone_and_leave_the_head(tmp_path: Path, suffix: str) -> None:
    """Section III-C: "ImageNet: network weights are taken from the pre-trained ImageNet classification model"."""
    path = tmp_path / f"resnet18.{suffix}"
    given = torchvision_style(seed=3)
    save_file(given, path) if suffix == "safetensors" else torch.save(given, path)  # what torchvision ships
    recipe = dataclasses.replace(SMALL, start="imagenet")
    encoder = start_encoder(recipe, seed=0, weights=path)
    assert torch.equal(encoder.backbone.conv1.weight, given["conv1.weight"])
    assert torch.equal(encoder.backbone.layer4[1].bn2.weight, given["layer4.1.bn2.weight"])
    assert torch.equal(encoder.head[0].weight, build_encoder(recipe, seed=0).head[0].weight)


def test_a_random_start_reads_no_weights_file(tmp_path: Path) -> None:
    encoder = start_encoder(SMALL, seed=4, weights=tmp_path / "absent")
    assert equal(snapshot(encoder), snapshot(build_encoder(SMALL, seed=4)))


def test_imagenets_weights_for_another_resnet_are_refused(tmp_path: Path) -> None:
    save_file(torchvision_style(seed=3), tmp_path / "resnet18.safetensors")
    encoder = build_encoder(dataclasses.replace(SMALL, architecture="resnet50"), seed=0)
    with pytest.raises(ModelError, match=r"resnet18\.safetensors does not fit"):
        load_imagenet(encoder, tmp_path / "resnet18.safetensors")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_code_in_a_pth_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Bomb()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match=r"evil\.pth"):
        load_imagenet(build_encoder(SMALL, seed=0), tmp_path / "evil.pth")
    assert not (tmp_path / "exploded").exists()


def test_a_federation_downloads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: a plan with `start = "imagenet"` let a hospital's machine call download.pytorch.org."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    recipe = dataclasses.replace(SMALL, start="imagenet")
    with pytest.raises(ModelError, match="are not on this machine") as caught:
        start_encoder(recipe, seed=0, download=False)
    assert caught.value.next_step.startswith("curl -fLO https://download.pytorch.org/models/resnet18-")
    (folder := tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(given := torchvision_style(seed=3), folder / "resnet18-f37072fd.pth")
    encoder = start_encoder(recipe, seed=0, download=False)
    assert torch.equal(encoder.backbone.conv1.weight, given["conv1.weight"])


def test_without_a_network_the_error_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # no copy from an earlier download
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError) as caught:
        load_imagenet(build_encoder(SMALL, seed=0), None)
    assert "resnet18-f37072fd.pth" in caught.value.cause
    assert "imagenet_weights" in caught.value.next_step
    assert "efficientnet_lite0" in caught.value.next_step
