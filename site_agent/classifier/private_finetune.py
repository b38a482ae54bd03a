"""Fine-tuning with a private head: features of the frozen encoder, the head, and the one file that may leave."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import torch

from fedcervix.errors import TrainingError
from site_agent.classifier.finetune import Classifier, Finetuned, OnStep, features, validation_loss
from site_agent.classifier.privacy_accounting import Privacy
from site_agent.classifier.private_heads import WomensFeatures, fit
from site_agent.classifier.secret_draws import SecretDraws
from site_agent.data.image_sets import Labelled
from site_agent.network.encoder import snapshot
from site_agent.training.epochs import EpochRecord

NOT_COVERED = "the encoder; the threshold, the losses and the scores, which stay at the site"
"""by what is promised of a head"""


def private_finetune(
    classifier: Classifier, train: Labelled, valid: Labelled, privacy: Privacy, draws: SecretDraws, on_step: OnStep
) -> Finetuned:
    """Fit the output neuron to `train`, with differential privacy, and leave it in `classifier`.

    The backbone does not change. `valid` chooses nothing. Raises TrainingError where a feature is no finite number,
    ValueError where `privacy` is of other women.
    """
    started, device = time.monotonic(), next(classifier.parameters()).device
    found = features(classifier, train.pixels, device)
    if not np.isfinite(found).all():  # the length of such a gradient could not be cut
        raise TrainingError(
            "the encoder gives features that are not finite numbers",
            cause="its weights diverged, or the weights file is damaged",
            next_step="choose another start from: site-agent history",
        )
    women = WomensFeatures.of(found, train.labels, train.patients)
    if women.count != privacy.women:
        raise ValueError(f"privacy was promised for {privacy.women} women; these are {women.count}")
    head = torch.from_numpy(fit(women, privacy, draws, lambda step, of: on_step(1, step, of))).to(device)
    with torch.no_grad():
        classifier.neuron.weight.copy_(head[None, :-1])
        classifier.neuron.bias.copy_(head[-1:])
    train_loss, valid_loss = (validation_loss(classifier, part, device=device) for part in (train, valid))
    record = EpochRecord(1, train_loss, valid_loss, time.monotonic() - started)
    return Finetuned(snapshot(classifier), (record,), 1, "epochs")


def leaving(classifier: Classifier, privacy: Privacy, encoder: str) -> str:
    """Return the text of private-head.json, the only file of a private head that may leave the site.

    `encoder` is the digest of the model that the head belongs to.
    """
    neuron = classifier.neuron
    return json.dumps(
        {
            "format": "fedcervix private head 1",
            "encoder": encoder,
            "architecture": "sigmoid(weight . features + bias)",
            "weight": neuron.weight.detach().double().cpu().numpy()[0].tolist(),
            "bias": float(neuron.bias.detach().double()),
            "privacy": dataclasses.asdict(privacy),
            "unit": "one woman with all her images",
            "neighbours": "her images are there, or are not; the number of women is known",
            "not_covered": NOT_COVERED,
        },
        indent=1,
        allow_nan=False,
    )
