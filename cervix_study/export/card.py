"""The model card that goes with every exported model, for people (Markdown) and for programs (JSON).

Its sections are those of Mitchell et al., Model cards for model reporting, FAT* (2019), in their order, with the
training record and a way to load the weights. It counts women and images and names none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from cervix_study.export.front_matter import front_matter
from cervix_study.export.model_source import CurveRound, Released
from cervix_study.report.document import Block, Bullets, Code, Column, Heading, Table, Text, cells
from cervix_study.report.markdown import blocks_text
from cervix_study.report.wording import NOTHING, with_interval
from fedcervix import __version__
from fedcervix.core.plan import Fit, Roi, recipe_to_dict
from fedcervix.lineage.shelf import reason
from fedcervix.runtime.record import LedgerLine
from site_agent.classifier.evaluate import AtThreshold
from site_agent.classifier.intervals import WOMEN_MIN
from site_agent.network.encoder import feature_count
from site_agent.report.answer import counted, listed
from site_agent.report.page import recipe_rows, three
from site_agent.store.provenance import FEDERATED

FORMAT = "fedcervix model card 2"
CODE_LICENCE = "Apache-2.0"
CITATION = (
    "Pal, Xue, Antani: Deep Cervix Model Development from Heterogeneous and Partially Labeled Image Datasets (method); "
    "fedcervix (implementation)"
)
INTENDED = (
    "Research on how classifiers of cervix images after acetic acid may be started and trained.",
    "A cervix model: as the start of a classifier that is fine-tuned and tested on labels of the place of research.",
    "Repeating and judging the study that it comes from.",
)
NOT_INTENDED = (
    "**It is not a medical device.** No regulator has seen it. It must not diagnose, triage, or advise anybody.",
    "Images of another kind: other devices, without acetic acid, other magnification, other organs.",
    "Comparing institutions or devices: labels follow each institution's own criterion.",
    "Identifying a woman, or finding out whether her images were used in training.",
)
MEASURES = ("auc", "accuracy", "recall", "precision", "f1")


@dataclasses.dataclass(frozen=True, slots=True)
class Files:
    """What lies beside the card."""

    weights: str
    weights_sha256: str
    onnx: str
    onnx_sha256: str
    onnx_evaluator: str
    onnx_differences: Mapping[str, float]
    """output -> largest difference from the network's own answer on fixed images"""
    tolerance: float


FITTED: dict[Fit, str] = {
    "squash": "Upright by EXIF, RGB, Pillow antialiased bicubic, squash: both sides scaled, each by itself",
    "crop": "Upright by EXIF, RGB, Pillow antialiased bicubic, crop: the central square scaled",
}
"""how a picture becomes the network's input; other turns or filters give other answers"""

CROPPED: dict[Roi, str] = {
    "none": "",
    "manifest": "First crop to the cervix: a square around the manifest's box; a picture without one stays whole",
    "detector": "First crop to the cervix: a square around the box of fedcervix's detector, where it is sure of one "
    "(with fedcervix: site-agent predict)",
}

BOXES: dict[Fit, str] = {
    "squash": "box = (0, 0, image.width, image.height)\n",
    "crop": "side = min(image.size)\nleft, top = (image.width - side) / 2, (image.height - side) / 2\n"
    "box = (left, top, left + side, top + side)\n",
}
"""the part of a picture that is scaled, in the card's example"""


def _input(model: Released) -> Iterable[str]:
    """Yield how a picture becomes the network's input."""
    if stages := " or ".join(model.recipe.stages):
        yield f"Pictures of stage {stages} alone: it was trained and tested on no others. "
    yield FITTED[model.recipe.fit]
    if cropped := CROPPED[model.recipe.roi]:
        yield f". {cropped}"
    if model.colour:
        yield ". The ONNX file brings the colours of the site that made it to a reference: it is for its pictures"
    elif model.recipe.harmonise != "none":
        yield ". Pixels are in reference colours: each site brings its own there first (harmonise)"


def to_json(model: Released, files: Files) -> dict[str, object]:
    """Return the card as values JSON can hold."""
    return {
        "format": FORMAT,
        "kind": model.kind,
        "start": model.start,
        "software": {"made_with": model.software, "card_written_by": f"fedcervix {__version__}"},
        "recipe": recipe_to_dict(model.recipe),
        "input": "".join(_input(model)),
        **({"site_colour": dataclasses.asdict(model.colour)} if model.colour else {}),
        "seed": model.seed,
        "files": dataclasses.asdict(files),
        "licence_of_the_code": CODE_LICENCE,
        "licence_of_the_weights": None,
        "intended_use": list(INTENDED),
        "not_intended_use": list(NOT_INTENDED),
        "medical_device": False,
        "training": {
            "sites": list(model.sites),
            "origin": dict(model.origin),
            "provenance": model.provenance.to_json() if model.provenance else None,
            "counts": [dataclasses.asdict(row) for row in model.data],
            "pictures_under_several_patients": dict(model.shared_pictures),
            "rounds": [dataclasses.asdict(line) for line in model.rounds],
        },
        "state": dataclasses.asdict(model.standing),
        "threshold_chosen_on_validation": model.threshold,
        "tests": [{"site": test.site, **test.evaluation.to_json()} for test in model.judged],
        "site_predictability": model.site_predictability,
        "limitations": list(limitations(model)),
    }


def to_markdown(model: Released, files: Files) -> str:
    """Return the card as Markdown, with the head that programs read."""
    what = "Cervix model" if model.kind == "cervix model" else "Cervix classifier"
    blocks: list[Block] = [
        Heading(f"{what}: start {model.start}", 1),
        Text("**For research only. Not a medical device.**"),
        *_state(model),
        *_details(model, files),
        *_use(),
        *_factors(model),
        *_metrics(model),
        *_evaluation(model),
        *_training(model),
        *_analyses(model),
        *_ethics(model),
        Heading("Caveats and recommendations"),
        Bullets(tuple(limitations(model))),
        *_loading(model, files),
    ]
    return front_matter(model) + blocks_text(blocks)


def _state(model: Released) -> Iterable[Block]:
    """Yield what people have decided on the model, where they have."""
    stands = model.standing
    if stands.state == "retired":
        yield Text(f"**Retired: do not use it.** {reason(stands)}")
    elif stands.by:
        yield Text(f"Approved: {reason(stands)}")


def _details(model: Released, files: Files) -> Iterable[Block]:
    recipe = model.recipe
    network = f"{recipe.architecture}, {feature_count(recipe.architecture)} features"
    answer = {
        "cervix model": f"{network}; dense head `{recipe.head}` of {recipe.width} units",
        "classifier": f"{network}; one output neuron with sigmoid: the probability of case",
    }[model.kind]
    yield Heading("Model details")
    rows = [
        (
            "what",
            "weights learned without labels, to start classifiers from"
            if model.kind == "cervix model"
            else "a classifier of one institution's labels, fine-tuned as a whole",
        ),
        ("start", model.start),
        ("network", answer),
        ("input", f"{recipe.image_px} x {recipe.image_px} pixels. {''.join(_input(model))}"),
        ("weights", f"`{files.weights}`, SHA-256 `{files.weights_sha256}`"),
        ("ONNX", f"`{files.onnx}`, SHA-256 `{files.onnx_sha256}`"),
        ("seed", str(model.seed)),
        ("made with", model.software or NOTHING),
        ("licence of the code", CODE_LICENCE),
        ("licence of the weights", "this card gives none: the owners of the images decide"),
        ("citation", CITATION),
    ]
    rows += [(key.replace("_", " "), f"`{value}`") for key, value in model.origin.items()]
    yield _pairs(rows, "Model details")


def _pairs(rows: Iterable[tuple[str, str]], label: str) -> Table:
    columns = (Column("what", left=True), Column("value", left=True))
    return Table(columns, tuple(cells(key, value) for key, value in rows), label)


def _use() -> Iterable[Block]:
    yield Heading("Intended use")
    yield Bullets(INTENDED)
    yield Text("Not intended:")
    yield Bullets(NOT_INTENDED)


def _factors(model: Released) -> Iterable[Block]:
    yield Heading("Factors")
    yield Text(
        "These are known to matter: the device and its light, the criterion of the labels, how common the disease "
        "is, how many images a woman has. Age, pregnancy, infection, ethnicity and earlier treatment are not "
        "recorded in the manifests; it is not known how well the model does in such groups."
    )
    if model.site_predictability is not None:
        yield Text(
            f"A linear probe tells the site of a validation image from this representation in "
            f"{100 * model.site_predictability:.1f} % of cases: it contains information about the device."
        )


def _metrics(model: Released) -> Iterable[Block]:
    yield Heading("Metrics")
    chosen = "" if model.threshold is None else f", and from {three(model.threshold)}, chosen on validation images"
    yield Text(
        f"AUC; accuracy, recall, precision and F1 of images called case from a probability of .5{chosen}. 95 % "
        "intervals by woman (two images of one woman are not independent), as in the reports; they show how results "
        f"vary with other women, not with another training. With fewer than {WOMEN_MIN} test women of a class there "
        "is no interval and no conclusion."
    )


def _evaluation(model: Released) -> Iterable[Block]:
    yield Heading("Evaluation data")
    if not model.judged:
        yield Text("No test of exactly these weights is recorded in the folder that they were exported from.")
        return
    yield Bullets(
        tuple(
            f"{test.site}: {counted(test.evaluation.images, 'test image')} of "
            f"{counted(test.evaluation.women, 'woman', 'women')}, {test.evaluation.cases} of them images of cases"
            for test in model.judged
        )
    )
    yield Text("Women of the test part were not used in training or in any choice.")


def _training(model: Released) -> Iterable[Block]:
    yield Heading("Training data")
    yield Text(_learnt_from(model))
    if model.data:
        columns = ("site", "split", "class", "women", "labelled images", "all images")
        rows = tuple(
            cells(row.site, row.split, row.stratum, *(f"{n:,}" for n in (row.women, row.labelled_images, row.images)))
            for row in model.data
        )
        yield Table(tuple(Column(c, left=c in ("site", "split", "class")) for c in columns), rows, "Counts")
    else:
        yield Text("Counts of women and images are not recorded in the folder that it was exported from.")
    for site, pictures in model.shared_pictures.items():
        if pictures:
            yield Text(
                f"{counted(pictures, 'picture')} of {site} appeared under several patients: these patients count as "
                "one woman and share a split."
            )
    yield Heading("Training record", 3)
    yield _pairs([(f"`{key}`", value) for key, value, _ in recipe_rows(model.recipe)], "Recipe")
    if model.rounds:
        yield Heading("Ledger of the federation", 3)
        yield _ledger(model.rounds)


def _learnt_from(model: Released) -> str:
    """Return whose images the weights were learned from."""
    collections = model.origin.get("collections")
    pooled = collections if isinstance(collections, int) else 1
    own = "Images of the site that made it"
    if model.sites:
        tuned = ", and labelled images of the site that fine-tuned it" if model.provenance else ""
        return f"Images of {listed(model.sites)}{tuned}."
    return f"{own}, pooled with {counted(pooled - 1, 'further collection')}." if pooled > 1 else f"{own}."


def _ledger(rounds: Iterable[LedgerLine | CurveRound]) -> Table:
    """Return who contributed what, of a coordinator's ledger or of a study's cell."""
    columns = (Column("round", left=True), Column("mean validation loss"), Column("contributions", left=True))
    rows = [
        cells(str(line.round), NOTHING if line.loss is None else f"{line.loss:.4f}", "; ".join(_parts(line)))
        for line in rounds
    ]
    return Table(columns, tuple(rows), "Ledger")


def _parts(line: LedgerLine | CurveRound) -> list[str]:
    if isinstance(line, CurveRound):
        return [f"{site}: {_reported(told)}" for site, told in line.sites.items()]
    gave = [f"{c.site}: {c.images} images, {c.steps} steps" for c in line.contributions]
    return gave + [f"{m.site} missing: {m.reason}" for m in line.missing]


def _reported(told: Mapping[str, float]) -> str:
    return ", ".join(f"{told[key]:,.0f} {key}" for key in ("images", "steps") if key in told) or "took part"


def _analyses(model: Released) -> Iterable[Block]:
    yield Heading("Quantitative analyses")
    if not model.judged:
        yield Text("None is recorded.")
        return
    if model.kind == "cervix model":
        yield Text("Of classifiers that were fine-tuned from this model, one row each:")
    columns = (Column("site", left=True), Column("threshold"), *(Column(name) for name in MEASURES))
    rows = [
        cells(test.site, three(at.threshold), with_interval("auc", test.evaluation.auc), *_at(at))
        for test in model.judged
        for at in dict.fromkeys((test.evaluation.fixed, test.evaluation.chosen))
    ]
    yield Table(columns, tuple(rows), "Test results")


def _at(at: AtThreshold) -> list[Any]:
    return [with_interval(name, getattr(at, name)) for name in MEASURES if name != "auc"]


def _ethics(model: Released) -> Iterable[Block]:
    yield Heading("Ethical considerations")
    federated = model.start.startswith(FEDERATED)
    travelled = (
        "In the federation only weights and a short list of numbers left an institution; images did not."
        if federated
        else "No image left the institutions except where pooling was allowed."
    )
    yield Text(
        f"The images are of women's bodies and belong to their medical record. {travelled} Weights can contain "
        "traces of the images that they were trained on. No test of what can be extracted from these weights is "
        "recorded. Give them only to people to whom the institutions would agree."
    )


def limitations(model: Released) -> Iterable[str]:
    """Yield what to bear in mind, as far as the record tells it."""
    if not model.judged:
        yield "No test of exactly these weights is recorded: it is not known how well they work."
    for test in model.judged:
        tested = f"At {test.site} it was tested on {counted(test.evaluation.women, 'woman', 'women')}"
        auc = test.evaluation.auc
        if auc.interval is None:
            yield f"{tested}: {auc.why}, so there is no interval and no conclusion."
        else:
            yield f"{tested}: the interval of the AUC is {auc.interval[1] - auc.interval[0]:.2f} wide."
    if model.kind == "classifier":
        yield (
            "Trained with reverse class weights, it gives the probability of a case when there are as many cases as "
            "controls; where cases are rarer its probabilities are too high. Choose a threshold on images of the "
            "place where it is studied."
        )
    else:
        yield "By itself it makes no statement about a woman: classifiers are trained from it."
    if model.origin.get("control"):
        yield f"**It is a control of a study ({model.origin['control']}), not a model to use.**"
    if model.origin.get("outcome") not in (None, "OK"):
        yield f"The run ended {model.origin['outcome']}: a declared site is missing from at least one round."
    yield "One training with one seed: another seed gives another model, which may do better or worse."
    yield "Test it on images of your own, of women it has not seen, before you report results."


LOADED = """import json
from pathlib import Path
from fedcervix.core.plan import parse_recipe
from site_agent.network.encoder import apply_weights, build_encoder, load_weights
from site_agent.classifier.trainings import restore
recipe = parse_recipe(json.loads(Path("card.json").read_text())["recipe"])
state = load_weights(Path("FILE"))
"""
LOADING = {
    "classifier": 'network = restore(recipe, state, what="FILE")\n',
    "cervix model": 'network = build_encoder(recipe, 0)\napply_weights(network, state, what="FILE")\n',
}


def _loading(model: Released, files: Files) -> Iterable[Block]:
    yield Heading("How to load it")
    yield Text(
        f"With onnxruntime and Pillow. {''.join(_input(model))}; pixels are bytes (B, S, S, 3). Without the turn by "
        "EXIF a probability can be off by more than .7, with another filter by .06. (fedcervix itself also reads 16 "
        "bits, transparency and inverted colours; this example is for RGB and grey of 8 bits.)"
    )
    outputs, px = ", ".join(files.onnx_differences), model.recipe.image_px
    yield Code(
        "import os\n"
        'os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # or onnxruntime reports its use to its maker\n'
        "import numpy as np, onnxruntime\n"
        "from PIL import Image, ImageOps\n"
        f'session = onnxruntime.InferenceSession("{files.onnx}")\n'
        'image = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")\n'
        f"{BOXES[model.recipe.fit]}"
        f"pixels = np.asarray(image.resize(({px}, {px}), Image.Resampling.BICUBIC, box=box))[None]\n"
        f'{outputs}, = session.run(None, {{"pixels": pixels}})\n'
    )
    yield Text("With fedcervix (`card.json` holds the recipe):")
    yield Code(f"{LOADED}{LOADING[model.kind]}".replace("FILE", files.weights))
    differences = ", ".join(f"{name} {value:.1e}" for name, value in files.onnx_differences.items())
    yield Text(
        f"The ONNX file gave the network's own answers on fixed images ({files.onnx_evaluator}): largest differences "
        f"{differences}; more than {files.tolerance:g} would have been refused."
    )
