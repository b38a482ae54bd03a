"""The text of coordinator.toml, with every key behind a `#`, at the default of the chosen profile.

Keys and values come from the dataclasses themselves, so that the text cannot be out of date; a test takes away every
`#` and compares the plan. `REMARKS` has the explanations.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from fedcervix.core.bounds import OrDigest, Values, allowed
from fedcervix.core.profiles import PROFILES
from fedcervix.notify.settings import NotifySection

HEAD = """\
# Configuration of a fedcervix coordinator. Every key is explained in docs/configuration.md.
# A key behind `#` has its default value (of profile "{profile}"); remove the `#` to change it.
# A run keeps the plan it began with: what you change here applies to the next run.

[federation]
name = {name}

[listen]
"""

REMARKS = {
    "listen.bind": "the only port; sites connect to it; the coordinator opens connections only for [notify]",
    "listen.advertise": "HOST:PORT at which the sites reach the coordinator; written into invitations",
    "certificates": "all of them renew themselves, from half of this time on",
    "certificates.site_days": "for how long a site's certificate is issued",
    "certificates.own_days": "the same of the coordinator's own: the server's and the operator's",
    "notify": "messages to people, by webhook and mail; off until a receiver is named",
    "notify.on": "which",
    "notify.give_up_h": "for so long a message is tried again",
    "notify.webhook.url": "https; then: coordinator notify key",
    "notify.webhook.authority": "file of the receiver's authority, if it is your institution's",
    "notify.mail.server": "HOST:PORT",
    "notify.mail.security": "starttls, tls or none (only on this machine)",
    "notify.mail.sender": "an address",
    "notify.mail.to": "addresses",
    "notify.mail.authority": "as of the webhook",
    "run.sites": "the declared roster, in the order of averaging and of the ring",
    "run.profile": "paper, recommended or demo; the tables below override single keys",
    "run.base": "a first model made elsewhere; without it a site makes one from the seed",
    "run.terms": "how the sites federate",
    "run.terms.rounds": "at most; in a ring, a round is one cycle through all sites",
    "run.terms.epochs_per_round": "E of the paper",
    "run.terms.patience_rounds": "stop after this many rounds without a lower mean validation loss",
    "run.terms.share_max": "by-images, from three sites: one site's largest share of an average; 1: no limit",
    "run.terms.aggregation": "trimmed-mean: from five sites, csfssl only",
    "run.terms.trim": "trimmed-mean: share of the updates left out at each end",
    "run.terms.clip": "csfssl only: a step is cut to this many times the round's median; 0: no limit",
    "run.terms.server_momentum": "csfssl only: share of the last step added to the average",
    "run.terms.ring_result": "ppfssl only",
    "run.terms.compression": "fewer bytes over the network",
    "run.terms.sealed": "ppfssl only: models that the coordinator cannot read",
    "run.terms.step_max": "refuse an update farther from its base than this many times the base's size",
    "run.terms.quorum": "sites that a round needs; default: all (csfssl), any one (ppfssl)",
    "run.terms.lease_s": "a site without a sign of life for this long is silent",
    "run.terms.grace_s": "how long a round that has its quorum waits for silent sites",
    "run.terms.give_up_s": "how long a run waits for a quorum before it is aborted",
    "run.terms.secure_sum": "csfssl only: the coordinator learns sums of updates, and no update",
    "run.terms.holders": "secure_sum: sites that can compute all masks; colluders + 1, or + 2",
    "run.terms.colluders": "secure_sum: so many sites may help the coordinator",
    "run.recipe": "how a site trains",
    "run.recipe.width": "units of the dense layer",
    "run.recipe.start": "imagenet or a model: the first site then needs its weights",
    "run.recipe.image_px": "side of the square input",
    "run.recipe.batch_images": "N of the paper",
    "run.recipe.schedule": "of the learning rate, over the whole run",
    "run.recipe.proximal": "mu of FedProx; 0: plain averaging",
    "run.recipe.epochs_max": "of a whole run; rounds x epochs_per_round is cut to it",
    "run.recipe.roi": "crop to the cervix first: the manifest's column roi, or what a detector finds",
    "run.recipe.harmonise": "site-colour: each site's colours are moved to one reference",
    "run.recipe.stages": "native, acetic, green, iodine, other; [] is all",
    "run.recipe.positives": "same-stage-visit: two images of a visit and stage",
    "run.recipe.avoid_same_patient": "never two images of one woman in one batch",
    "run.recipe.precision": "auto: what each site measures as faster",
    "run.recipe.augment": "each image draws its own values from these ranges",
    "run.recipe.augment.flip_horizontal": "probability",
    "run.recipe.augment.flip_vertical": "probability",
    "run.recipe.augment.shift": "fraction of the side",
    "run.recipe.augment.colour": "acetic-safe: no gamma, brightness only darkens",
    "run.recipe.classifier": "how a site fine-tunes the shared model on its own labels",
    "run.recipe.classifier.method": "probe: the dense layer alone; lp-ft: the dense layer first, then all weights",
    "run.recipe.classifier.trainings": "so many trainings make one classifier: the mean of their scores",
    "run.recipe.classifier.averaged_epochs": "lp-ft: mean of the weights of so many last epochs",
    "run.recipe.classifier.tuned_share": "lp-ft: so much of the fine-tuned weights, the rest from the first part",
    "run.recipe.classifier.labels": "ordered: learn all classes where there are more than two",
    "run.recipe.classifier.zone_error": "indeterminate zone: share of women who may be called wrongly; 0: no zone",
}
COLUMN = 45
"""where remarks begin, if the line is not longer"""


def coordinator_toml(*, name: str, bind: str, advertise: str, sites: tuple[str, ...], profile: str) -> str:
    """Return the text of a new coordinator.toml. Raises KeyError where there is no such profile."""
    start = PROFILES[profile]
    lines = [
        _line(f"bind = {_toml(bind)}", REMARKS["listen.bind"]),
        _line(f"advertise = {_toml(advertise)}", REMARKS["listen.advertise"]),
        "",
        _line("[certificates]", REMARKS["certificates"]),
        _line("# site_days = 90.0", REMARKS["certificates.site_days"]),
        _line("# own_days = 90.0", REMARKS["certificates.own_days"]),
        "",
        *_notify(),
        "",
        "[run]",
        _line(f"sites = {_toml(list(sites))}", REMARKS["run.sites"]),
        _line(f"profile = {_toml(profile)}", REMARKS["run.profile"]),
        _line('# base = "first.safetensors"', REMARKS["run.base"]),
        *_table("run.terms", start.terms, sites=len(sites)),
        *_table("run.recipe", start.recipe, sites=len(sites)),
    ]
    return HEAD.format(profile=profile, name=_toml(name)) + "\n".join(lines) + "\n"


def _notify() -> Iterator[str]:
    """Yield the lines of [notify] and of the tables below it."""
    off = NotifySection()
    for name, values in (("notify", off), ("notify.webhook", off.webhook), ("notify.mail", off.mail)):
        yield _line(f"[{name}]", REMARKS.get(name, ""))
        for field in dataclasses.fields(values):
            value = getattr(values, field.name)
            if not dataclasses.is_dataclass(value):
                yield _line(f"# {field.name} = {_toml(value)}", REMARKS[f"{name}.{field.name}"])


def _table(name: str, values: Any, *, sites: int) -> Iterator[str]:
    """Yield the lines of a table and of those below it."""
    yield ""
    yield _line(f"[{name}]", REMARKS.get(name, ""))
    below, words = [], allowed(values.__class__)
    for field in dataclasses.fields(values):
        value, key = getattr(values, field.name), f"{name}.{field.name}"
        if dataclasses.is_dataclass(value):
            below.append((key, value))
            continue
        written = sites if value is None else value  # quorum: "left out" cannot be written down
        remarks = [_choices(words.get(field.name)), REMARKS.get(key, "")]
        yield _line(f"# {field.name} = {_toml(written)}", "; ".join(filter(None, remarks)))
    for key, value in below:
        yield from _table(key, value, sites=sites)


def _line(text: str, remark: str) -> str:
    return f"{text:<{COLUMN}}  # {remark}" if remark else text


def _choices(values: Values | None) -> str:
    """Return "a, b or c" where a key is one of these words; empty for numbers."""
    if isinstance(values, OrDigest):
        return str(values)
    return f"{', '.join(values[:-1])} or {values[-1]}" if isinstance(values, tuple) else ""


def _toml(value: Any) -> str:
    """Return a value as TOML; small numbers without an exponent, as people write them."""
    return f"{Decimal(repr(value)):f}" if isinstance(value, float) else json.dumps(value, allow_nan=False)
