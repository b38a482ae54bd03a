"""The plan: what a run *is*. Frozen, checked when built, printable, and named by its SHA-256.

The plan is the **training contract** between the coordinator and the sites: a site compares it with what its own
policy allows before it trains a single step. A mode is data, not a class. Everything that changes the resulting
weights is in here; everything that does not (addresses, folders, number of threads) is not.

Units stand last in a name: `_s` seconds, `_px` pixels, `_deg` degrees. Literature: the paper's section numbers are in
docs/paper-fidelity.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from fedcervix.core.bounds import DIGEST, INT64_MAX, OrDigest, Within, check_values
from fedcervix.core.formats import FIRST, KEY
from fedcervix.core.modes import MODES, Mode, ModeRules
from fedcervix.core.plan_formats import from_dict, to_dict
from fedcervix.core.sum_plan import SumTerms, sum_faults
from fedcervix.json_text import parsed
from fedcervix.printable import QUOTED_CHARS_MAX, quoted, shortened

Architecture = Literal["resnet18", "resnet50", "efficientnet_lite0"]
Head = Literal["relu", "linear", "mlp"]
Start = Annotated[str, OrDigest(("random", "imagenet"))]
Views = Literal["one-augmented", "both-augmented"]
Loss = Literal["nt-xent", "dcl"]
Fit = Literal["squash", "crop"]
Roi = Literal["none", "manifest", "detector"]
Harmonise = Literal["none", "site-colour"]
Precision = Literal["float32", "bfloat16", "auto"]
Schedule = Literal["constant", "cosine"]
Average = Literal["equal", "by-images"]
Aggregation = Literal["mean", "trimmed-mean"]
BatchNorm = Literal["mean", "pooled-variance", "local-statistics", "local"]
OptimiserState = Literal["reset", "keep"]
ClassifierAugment = Literal["none", "light"]
ClassifierMethod = Literal["full", "probe", "lp-ft"]
ClassifierLabels = Literal["binary", "ordered"]
RingResult = Literal["last", "cycle-average"]
Compression = Literal["none", "bfloat16", "int8"]
Stage = Literal["native", "acetic", "green", "iodine", "other"]
"""of an examination: before anything is applied, after acetic acid, through a green filter, after iodine"""
STAGES: tuple[Stage, ...] = get_args(Stage)
Positives = Literal["view", "same-stage-visit"]
Colour = Literal["free", "acetic-safe"]

SITE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A site is named like one label of a host name, with 1 to 63 characters: a-z, 0-9 and inner hyphens."""
PROFILE_NAME = re.compile(r"[a-z0-9_-]{1,40}")

SITES_MAX = 256
SEALED_SITES_MIN = 2
"""A ring of one site hands its model to nobody."""
ROUNDS_MAX = 100_000
EPOCHS_MAX = 100_000

TRIMMED_SITES_MIN = 5
"""The trimmed mean of fewer updates would be little more than their median."""
TRIMMED_QUORUM_MIN = 3
CLIPPED_SITES_MIN = 3
"""Of two updates, nothing tells which one is too long, or an extreme."""


def check(ok: bool, message: str) -> None:
    """Raise ValueError(message) unless `ok`."""
    if not ok:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """How one image becomes its augmented version (section II-C; magnitudes are not printed there).

    Every image of a batch draws its own parameters, uniformly from the ranges below.
    """

    flip_horizontal: Annotated[float, Within(0, 1)] = 0.5
    """probability"""
    flip_vertical: Annotated[float, Within(0, 1)] = 0.5
    """probability"""
    rotation_deg: Annotated[float, Within(0, 180)] = 20.0
    """angle from [-rotation_deg, rotation_deg]"""
    shift: Annotated[float, Within(0, below=1)] = 0.10
    """shift along each axis from [-shift, shift], as a fraction of the side"""
    zoom_min: Annotated[float, Within(above=0, most=10)] = 0.9
    zoom_max: Annotated[float, Within(above=0, most=10)] = 1.1
    """magnification; above 1 enlarges"""
    gamma_min: Annotated[float, Within(above=0, most=10)] = 0.8
    gamma_max: Annotated[float, Within(above=0, most=10)] = 1.25
    """exponent on intensities in [0, 1], drawn uniformly in its logarithm"""
    brightness: Annotated[float, Within(0, below=1)] = 0.15
    """factor from [1 - brightness, 1 + brightness]"""
    colour: Colour = "free"
    """`acetic-safe`: what acetic acid turns white stays as white, beside its surroundings, as it was. No gamma, and
    brightness only darkens, so the proportions of all colours in an image stay and none is cut off at white"""

    def __post_init__(self) -> None:
        check_values(self)
        check(self.zoom_min <= self.zoom_max, f"zoom_min is at most zoom_max; found {self.zoom_min}")
        check(self.gamma_min <= self.gamma_max, f"gamma_min is at most gamma_max; found {self.gamma_min}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierRecipe:
    """How a site fine-tunes the shared model on its own labels (sections III-B, III-D)."""

    lr: Annotated[float, Within(above=0)] = 0.001
    momentum: Annotated[float, Within(0, below=1)] = 0.09
    """as printed; probably meant .9, which profile `recommended` uses"""
    weight_decay: Annotated[float, Within(0)] = 1e-6
    batch_images: Annotated[int, Within(1, 4096)] = 4
    epochs_max: Annotated[int, Within(1, 10_000)] = 50
    patience_epochs: Annotated[int, Within(1)] = 5
    reverse_class_weights: bool = True
    """weight n / (2 n_c) per sample"""
    augment: ClassifierAugment = "none"
    method: ClassifierMethod = "full"
    """`full` fine-tunes everything (the paper's); `probe` fits the output neuron to the frozen encoder; `lp-ft` does
    that, and fine-tunes everything from there (Kumar et al. 2022)"""
    trainings: Annotated[int, Within(1, 100)] = 1
    """so many trainings, each with its own random numbers, make one classifier: its score is the mean of theirs"""
    averaged_epochs: Annotated[int, Within(1, 100)] = 1
    """of `lp-ft`: the weights are the mean over so many epochs, the latest ones (Izmailov et al. 2018)"""
    tuned_share: Annotated[float, Within(above=0, most=1)] = 1.0
    """of `lp-ft`: so much of the weights is fine-tuned, the rest is the probe's (WiSE-FT, Wortsman et al. 2022)"""
    labels: ClassifierLabels = "binary"
    """`ordered`: where a site's labels have more than two ordered classes, the classifier learns all of them (CORAL)"""
    zone_error: Annotated[float, Within(0, below=0.5)] = 0.0
    """of the indeterminate zone: so many women of either class may be called wrongly (conformal, by woman); 0: no
    zone"""

    def __post_init__(self) -> None:
        check_values(self)
        for key in ("averaged_epochs", "tuned_share"):
            words = f'{key} needs method = "lp-ft": with another, a mean of weights would not fit its batch norm'
            check(self.method == "lp-ft" or getattr(self, key) == 1, words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one site trains: network, views, loss, optimiser, input, classifier. Defaults are the paper's."""

    architecture: Architecture = "resnet50"
    width: Annotated[int, Within(1, 4096)] = 64
    """units of the dense layer (the representation)"""
    head: Head = "relu"
    start: Start = "random"
    """of the backbone: random weights, ImageNet's, or those of the cervix model with this digest; the head is random"""
    image_px: Annotated[int, Within(32, 1024)] = 224
    """side of the square input"""
    fit: Fit = "squash"
    """how an image becomes a square: `squash` scales both sides, `crop` keeps the aspect and cuts the centre"""
    roi: Roi = "none"
    """crop to the cervix first: to the manifest's box, or to a detector's, which crops nothing where it is unsure"""
    harmonise: Harmonise = "none"
    """`site-colour`: bring the tissue in a site's pictures to one reference, by one fixed line for each channel"""
    views: Views = "one-augmented"
    """`one-augmented`: the original image is one of its two views"""
    normalise: bool = True
    """scale each representation to unit length before the loss"""
    loss: Loss = "nt-xent"
    temperature: Annotated[float, Within(0.001, 10)] = 0.1
    batch_images: Annotated[int, Within(1, 65_536)] = 8
    """N: a mini-batch holds 2N views"""
    lr: Annotated[float, Within(above=0)] = 0.01
    schedule: Schedule = "constant"
    """of the learning rate, by the step counted over the whole run: `cosine` ends at zero with the last epoch"""
    warmup_epochs: Annotated[float, Within(0, 1000)] = 0.0
    """the learning rate rises linearly for this many epochs"""
    momentum: Annotated[float, Within(0, below=1)] = 0.9
    weight_decay: Annotated[float, Within(0)] = 1e-5
    decay_norms_and_biases: bool = True
    proximal: Annotated[float, Within(0, 1000)] = 0.0
    """FedProx (Li et al. 2020): pull towards the weights a round began with, mu/2 |w - w0|^2; 0 is plain averaging"""
    epochs_max: Annotated[int, Within(1, EPOCHS_MAX)] = 50
    """of local training; a federation stops after `rounds` as well"""
    patience_epochs: Annotated[int, Within(1)] = 5
    stages: tuple[Stage, ...] = ()
    """of the examination: only their images train and test, encoder and classifier; none: all images do"""
    positives: Positives = "view"
    """what a positive pair is: two views of an image, or, where there is one, a view of another image of the same visit
    and stage (MICLe, Azizi et al. 2021; MedAug, Vu et al. 2021). Then two images of one woman are never negatives"""
    avoid_same_patient: bool = False
    """never two images of one woman in one batch: she would be a false negative"""
    precision: Precision = "float32"
    """of the network's arithmetic; `auto` takes bfloat16 at the sites where it measures faster"""
    augment: Augment = dataclasses.field(default_factory=Augment)
    classifier: ClassifierRecipe = dataclasses.field(default_factory=ClassifierRecipe)

    def __post_init__(self) -> None:
        check_values(self)
        check(isinstance(self.stages, tuple), f"stages is a list of stages; found {quoted(self.stages)}")
        known = all(stage in STAGES for stage in self.stages) and len(set(self.stages)) == len(self.stages)
        check(known, f"stages are some of {', '.join(STAGES)}, each once; found {quoted(self.stages)}")

    @property
    def start_model(self) -> str:
        """The digest of the cervix model that it starts from; empty for another start."""
        return self.start if DIGEST.fullmatch(self.start) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How the sites federate: everything of a plan but its name, roster and recipe. Defaults are the paper's."""

    rounds: Annotated[int, Within(1, ROUNDS_MAX)] = 50
    """at most; in a ring, a round is one cycle through all sites"""
    epochs_per_round: Annotated[int, Within(1, 1000)] = 1
    """E (section II-B)"""
    patience_rounds: Annotated[int, Within(1)] = 5
    """stop after this many rounds without a lower mean validation loss"""
    average: Average = "equal"
    share_max: Annotated[float, Within(above=0, most=1)] = 0.9
    """where the average is by images, and from three updates on: no site's share is larger (see `capped`); 1: no
    limit"""
    aggregation: Aggregation = "mean"
    """how updates become one model: their mean, or number by number the mean without the extremes (Yin et al. 2018)"""
    trim: Annotated[float, Within(above=0, below=0.5)] = 0.2
    """of the trimmed mean: the share of the updates that is left out at either end, at least one"""
    clip: Annotated[float, Within(1, 1000, also=(0,))] = 0.0
    """a step longer than so many times the round's median step is shortened to that (after Sun et al. 2019); 0: none"""
    server_momentum: Annotated[float, Within(0, below=1)] = 0.0
    """FedAvgM (Hsu et al. 2019): the share of the published model's last step that is added to this round's
    average; 0 is the plain mean"""
    batch_norm: BatchNorm = "mean"
    optimiser_state: OptimiserState = "reset"
    ring_result: RingResult = "last"
    compression: Compression = "none"
    """of the models that travel: `bfloat16` halves the bytes, `int8` quarters them; a model is rounded where it is
    made, and arrives as it was made"""
    sealed: bool = False
    """in a ring: a model travels encrypted, and only the site that is next can read it (docs/sealed-ring.md)"""
    step_max: Annotated[float, Within(above=0, most=1e36)] = 1000.0
    """how far an update may lie from the model that it was trained from, relative to that model's size: weights and
    biases, running means and running deviations, each together (see `fedcervix.models.step_norms`)"""
    quorum: Annotated[int | None, Within(1, also=(None,))] = None
    """sites that a round cannot do without. None: all that are not revoked (csfssl), any one (ppfssl, whose ring passes
    over a site that is away); a run never begins without all of them unless this is set"""
    lease_s: Annotated[float, Within(1)] = 60.0
    """a site that reports no sign of life for this long is silent: its place in the round is given up. A site reports
    four times per lease: a shorter one would be a flood of reports"""
    grace_s: Annotated[float, Within(0)] = 300.0
    """with a quorum below the roster: how long a round that has its quorum waits for silent sites"""
    give_up_s: Annotated[float, Within(above=0)] = 604_800.0
    """how long a run waits for a quorum before it is aborted"""
    seed: Annotated[int, Within(0, INT64_MAX)] = 0
    secure_sum: bool = False
    """the coordinator learns the sum of a round's updates and none of them (see `fedcervix.core.sum_plan`)"""
    holders: tuple[str, ...] = ()
    """of a secure sum: sites that can compute the masks of all; one more than `colluders`, or two"""
    colluders: Annotated[int, Within(0, SITES_MAX)] = 0
    """of a secure sum: so many sites may tell the coordinator their secrets"""

    def __post_init__(self) -> None:
        check_values(self)
        check(isinstance(self.holders, tuple), f"holders is a list of names; found {quoted(self.holders)}")
        words = 'aggregation = "trimmed-mean" needs average = "equal": with weights, one site could outweigh the others'
        check(self.aggregation == "mean" or self.average == "equal", words)

    def rounds_max(self, recipe: Recipe) -> int:
        """Return the rounds at most: `rounds`, and no more epochs than the recipe allows (50 in the paper)."""
        return max(1, min(self.rounds, recipe.epochs_max // self.epochs_per_round))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is. Two runs with equal plans, data and accepted updates end with equal weights."""

    mode: Mode
    sites: tuple[str, ...]
    """the declared roster; averages are taken in this order, a ring runs in this order from the first"""
    profile: str
    """where the values came from: paper, recommended, demo"""
    terms: Terms
    recipe: Recipe
    _text: str = dataclasses.field(init=False, compare=False, repr=False, default="")
    """as it was read, or as this version writes it"""

    def __post_init__(self) -> None:
        check_values(self)
        check(isinstance(self.sites, tuple), f"not a plan: sites is a list of names; found {quoted(self.sites)}")
        check(len(self.sites) >= 1, "a plan names at least one site")
        check(len(self.sites) <= SITES_MAX, f"a plan names at most {SITES_MAX} sites; found {len(self.sites)}")
        check(len(set(self.sites)) == len(self.sites), "a plan names each site once")
        check(PROFILE_NAME.fullmatch(self.profile) is not None, "a profile's name has a-z, 0-9, - and _, at most 40")
        for site in self.sites:
            check(SITE_NAME.fullmatch(site) is not None, f"not a site name: {quoted(site)} (a-z, 0-9, inner hyphens)")
        self._check_terms()
        object.__setattr__(self, "_text", canonical_json(to_dict(self)))

    def _check_terms(self) -> None:
        """Check the terms that depend on the mode and on the number of sites."""
        terms, sites, trims = self.terms, len(self.sites), self.terms.aggregation == "trimmed-mean"
        self._check_sums()
        from_average = self.mode_rules.goes_on_from_average
        check(from_average or terms.server_momentum == 0, "server_momentum is for csfssl: a ring has no average")
        check(from_average or not (trims or terms.clip), "trimmed-mean and clip are for csfssl alone")
        for asked, key, least in ((trims, "trimmed-mean", TRIMMED_SITES_MIN), (terms.clip, "clip", CLIPPED_SITES_MIN)):
            check(not asked or sites >= least, f"{key} needs at least {least} sites; found {sites}")
        self._check_sealed()
        if terms.quorum is not None:
            least = TRIMMED_QUORUM_MIN if trims else 1
            words = f"trimmed-mean needs a quorum of at least {least}: of two updates, none can be left out"
            check(terms.quorum >= least, words)
            check(terms.quorum <= sites, f"quorum {terms.quorum} exceeds the {sites} sites")

    def _check_sealed(self) -> None:
        """Check what goes together with models that the coordinator cannot read."""
        terms = self.terms
        packs = 'does not go with compression = "int8": the next site could not read the model that it differs from'
        faults = (
            (not self.mode_rules.in_turns, "is for ppfssl: the coordinator cannot average what it cannot read"),
            (self.averages, 'needs ring_result = "last": the coordinator cannot average what it cannot read'),
            (len(self.sites) < SEALED_SITES_MIN, f"needs at least {SEALED_SITES_MIN} sites"),
            (terms.compression == "int8", f'{packs}; use "bfloat16"'),
        )
        for is_fault, words in faults:
            check(not (terms.sealed and is_fault), f"sealed {words}")

    def _check_sums(self) -> None:
        """Check what does not go together with secure sums: all of it is said at once."""
        terms = self.terms
        if not terms.secure_sum:
            words = "holders and colluders say who takes which part in secure sums: they need secure_sum = true"
            check(not (terms.holders or terms.colluders), words)
            return
        faults = sum_faults(
            SumTerms(
                in_turns=self.mode_rules.in_turns,
                sites=self.sites,
                holders=terms.holders,
                colluders=terms.colluders,
                quorum=terms.quorum,
                aggregation=terms.aggregation,
                clip=terms.clip,
                compression=terms.compression,
                share_max=terms.share_max if terms.average == "by-images" else 1.0,
            )
        )
        check(not faults, "\n".join(faults))

    @property
    def mode_rules(self) -> ModeRules:
        """The rules of the plan's mode."""
        return MODES[self.mode]

    @property
    def averages(self) -> bool:
        """Say whether a round's updates become one average, which is then its model."""
        return self.mode_rules.goes_on_from_average or self.terms.ring_result == "cycle-average"

    @property
    def hides_from_coordinator(self) -> bool:
        """Say whether the coordinator is not to see what single sites have trained. Then each site opens the run."""
        return self.terms.secure_sum or self.terms.sealed

    @property
    def rounds_max(self) -> int:
        """Rounds at most."""
        return self.terms.rounds_max(self.recipe)

    def canonical(self) -> str:
        """Return the one JSON text of this plan: sorted keys, no spaces, shortest floats. It never changes.

        Of a plan that was read, it is the text that was read.
        """
        return self._text

    @property
    def format(self) -> int:
        """The number that the text names: who reads formats up to it can read this plan."""
        return int(parsed(self._text).get(KEY, FIRST))

    @property
    def digest(self) -> str:
        """The training contract: SHA-256 of the canonical form, hexadecimal."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Rebuild a plan from its text, also of an earlier version (see `fedcervix.core.plan_formats`).

        Raises UnknownFormat where a later version wrote it, ValueError on anything else.
        """
        raw = parsed(text)
        try:
            plan = from_dict(cls, raw)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a plan: {shortened(str(error), QUOTED_CHARS_MAX)}") from error
        check(canonical_json(raw) == text, "not a plan in its canonical form")
        object.__setattr__(plan, "_text", text)
        return plan


def recipe_to_dict(recipe: Recipe) -> dict[str, object]:
    """Return what the text of a recipe says, in the lowest format that can say it."""
    return to_dict(recipe, "recipe")


def parse_recipe(raw: Any) -> Recipe:
    """Rebuild a recipe from what `recipe_to_dict` made of it. Raises UnknownFormat, ValueError, TypeError."""
    return from_dict(Recipe, raw, "recipe")


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Say in words where two plans (or recipes) differ: one `path: ours, theirs` line per value."""
    if dataclasses.is_dataclass(ours) and type(ours) is type(theirs):
        return [
            line
            for field in dataclasses.fields(ours)
            if field.compare
            for line in differences(
                getattr(ours, field.name),
                getattr(theirs, field.name),
                f"{path}.{field.name}" if path else field.name,
            )
        ]
    return [] if ours == theirs else [f"{path}: {quoted(ours)} here, {quoted(theirs)} there"]
