"""Where a classifier looked: Grad-CAM, a map of which parts of a picture raised its score.

The maps are as coarse as the last layer (7 x 7 at 224 pixels, 2 x 2 at 64). A map on the cervix does not show that the
network understood a lesion, and one beside it does not show that it erred: such maps change little when weights are
replaced by random ones, and repeat badly. They are good for finding plain mistakes: a label, a speculum, a border.

    Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based localization, ICCV (2017)
    Adebayo et al., Sanity checks for saliency maps, NeurIPS (2018); Arun et al., Assessing the trustworthiness of
    saliency maps for localizing abnormalities in medical imaging, Radiol Artif Intell 3:e200267 (2021)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from site_agent.classifier.averaged import AveragedClassifier
from site_agent.classifier.finetune import Classifier, Network
from site_agent.network.augmentation import standardise, to_input
from site_agent.network.devices import place


def heat(network: Network, pixels: NDArray[np.uint8], device: torch.device) -> NDArray[np.float64]:
    """Return Grad-CAM of the score "case" of pictures (n, S, S, 3), as (n, S, S) from 0 to 1.

    Of several trainings it is the mean. A map is 0 everywhere where nothing in the picture raised the score.
    """
    parts = network.trainings if isinstance(network, AveragedClassifier) else [network]
    return np.asarray(np.mean([_heat(cast(Classifier, one), pixels, device) for one in parts], axis=0))


def _heat(classifier: Classifier, pixels: NDArray[np.uint8], device: torch.device) -> NDArray[np.float64]:
    place(classifier, device)
    classifier.eval()
    with _last_map(classifier.backbone) as found, torch.enable_grad():
        logits = classifier(standardise(to_input(torch.from_numpy(pixels).to(device))).requires_grad_())
        maps = found[-1]  # (n, C, h, w)
        (slopes,) = torch.autograd.grad(logits.sum(), maps)
    weights = slopes.mean(dim=(2, 3), keepdim=True)
    raw = F.relu((weights * maps).sum(dim=1, keepdim=True)).detach()
    large = F.interpolate(raw, size=pixels.shape[1:3], mode="bilinear", align_corners=False).squeeze(1)
    top = large.amax(dim=(1, 2), keepdim=True)
    return np.asarray(torch.where(top > 0, large / top.clamp_min(1e-12), 0.0).double().cpu().numpy())


@contextmanager
def _last_map(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list whose last entry is, after a forward pass, the last output with more than one place."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _given: Sequence[Tensor], output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 1:
            found[:] = [output]

    hooks = [module.register_forward_hook(keep) for module in backbone.modules()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def overlaid(picture: NDArray[np.uint8], own: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a picture (S, S, 3) with its heat (S, S) above it: what did not matter is dark."""
    light = 0.3 + 0.7 * own[..., None]
    return np.asarray(np.round(picture * light), np.uint8)
