"""A network as ONNX: one file from an image's bytes to its answer, that runs without this project and without torch.

Rules
1. The file takes what is decoded: pixels (B, S, S, 3), bytes, RGB. Scaling and colour are inside, so nobody can forget
   them; so are the colours of the site that made a classifier, where its recipe harmonises. B is free, S is the
   recipe's.
2. A file is handed out only after it gave the network's own answers on fixed images, to within `TOLERANCE`.
3. It says nothing of the machine that made it: the exporter's notes on source files are dropped.

An encoder answers with `features` (what a classifier is fine-tuned on) and `representation`; a classifier with
`probability` (of case).
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedcervix.core.seeds import derive
from fedcervix.errors import ModelError
from site_agent.classifier.averaged import AveragedClassifier
from site_agent.classifier.finetune import Classifier, Network
from site_agent.images.preparation import SiteColour
from site_agent.network.augmentation import standardise, to_input
from site_agent.network.encoder import Encoder, unit_rows

TOLERANCE = 1e-4
"""largest difference of any output, absolute; features, which have no fixed scale, relative to their largest value"""

INPUT = "pixels"
OUTPUTS: dict[type[nn.Module], tuple[str, ...]] = {
    Encoder: ("features", "representation"),
    Classifier: ("probability",),
    AveragedClassifier: ("probability",),
}
OPSET = 18


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the file's answers lie from the network's."""

    evaluator: str
    """what ran the file, with its version"""
    differences: Mapping[str, float]
    """output -> largest difference, as `TOLERANCE` measures it"""

    @property
    def holds(self) -> bool:
        """Whether every output agrees."""
        return all(difference <= TOLERANCE for difference in self.differences.values())


class _Answers(nn.Module):
    """A network with its input's preparation, as one graph."""

    def __init__(self, network: Encoder | Network, colour: SiteColour | None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("table", None if colour is None else torch.from_numpy(colour.table()))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.table, Tensor):
            pixels = torch.stack([row[pixels[..., k].long()] for k, row in enumerate(self.table)], dim=-1)
        images = standardise(to_input(pixels)).contiguous()
        if isinstance(self.network, AveragedClassifier):
            return (self.network(images),)
        if isinstance(self.network, Classifier):
            return (torch.sigmoid(self.network(images)),)
        features = self.network.features(images)
        representation = self.network.head(features)
        return features, unit_rows(representation) if self.network.normalise else representation


def to_onnx(
    network: Encoder | Network, image_px: int, notes: Mapping[str, str], colour: SiteColour | None = None
) -> tuple[bytes, Parity]:
    """Return a network in eval mode as an ONNX file, with the parity that it was checked for; `notes` go into the file.

    `colour` is what the site's pictures are brought to the reference with.

    Raises ModelError where the file's answers differ, ConfigError where the programs for it are not installed.
    """
    whole = _Answers(network, colour).eval().cpu().to(memory_format=torch.contiguous_format)
    outputs = OUTPUTS[type(network)]
    content = _exported(whole, image_px, outputs, notes)
    found = parity(whole, content, image_px, outputs)
    if not found.holds:
        worst = max(found.differences.items(), key=lambda item: item[1])
        raise ModelError(
            f"the ONNX file answers differently: {worst[0]} by {worst[1]:.2g}, more than {TOLERANCE:g}",
            cause="a fault of the exporter or of the evaluator",
            next_step="use the safetensors file; try other versions of torch, onnx and onnxruntime",
        )
    return content, found


def _exported(whole: _Answers, image_px: int, outputs: tuple[str, ...], notes: Mapping[str, str]) -> bytes:
    import onnx
    import onnxscript  # noqa: F401  (torch's exporter needs it, and says so only by a traceback)

    pixels = torch.from_numpy(fixed_pixels(image_px))
    with torch.no_grad():
        whole(pixels)  # makes what is kept for later (mean and deviation of the colours): traced, it would be no tensor
    shapes = ({0: torch.export.Dim("images", min=1, max=65536)},)
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            whole,
            (pixels,),
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    _drop_notes_of_origin(model)
    onnx.helper.set_model_props(model, dict(notes))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


class _quiet:  # noqa: N801  (reads as what it does: `with _quiet():`)
    """No progress lines of the exporter: they are neither the user's nor ours."""

    def __enter__(self) -> None:
        self._level = logging.getLogger("torch.onnx").level
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("torch.onnx").setLevel(self._level)


def _drop_notes_of_origin(model: Any) -> None:
    """Drop doc strings and metadata: they hold paths and source lines of this machine."""
    graphs = [model.graph, *model.functions]
    nodes = [node for graph in graphs for node in graph.node]
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]
    for part in (model, *graphs, *nodes, *values):
        part.ClearField("doc_string")
        if hasattr(part, "metadata_props"):
            part.ClearField("metadata_props")


def fixed_pixels(image_px: int) -> NDArray[np.uint8]:
    """Return five images (5, S, S, 3), the same for ever: black, white, a ramp, and two of noise."""
    size = (image_px, image_px, 3)
    ramp = np.linspace(0, 255, image_px, dtype=np.uint8)[:, None, None]
    noise = np.random.default_rng(derive(0, "onnx-parity")).integers(0, 256, (2, *size), dtype=np.uint8)
    plain = [np.full(size, 0, np.uint8), np.full(size, 255, np.uint8), np.broadcast_to(ramp, size)]
    return np.concatenate([np.stack(plain), noise])


@torch.no_grad()
def parity(whole: nn.Module, content: bytes, image_px: int, outputs: tuple[str, ...]) -> Parity:
    """Compare a file's answers with the network's, on all fixed images together and on one alone."""
    pixels = fixed_pixels(image_px)
    evaluator, run = _evaluator(content)
    differences = dict.fromkeys(outputs, 0.0)
    for given in (pixels, pixels[-1:]):
        ours = [answer.double().numpy() for answer in whole(torch.from_numpy(given))]
        for name, own, theirs in zip(outputs, ours, run(given), strict=True):
            scale = max(1.0, float(np.abs(own).max())) if name == "features" else 1.0
            gap = float(np.abs(own - np.asarray(theirs, np.float64)).max()) / scale
            differences[name] = max(differences[name], gap)
    return Parity(evaluator, differences)


def _evaluator(content: bytes) -> tuple[str, Any]:
    """Return what runs the file: onnxruntime; where it is not installed, onnx's own reference, slow and exact."""
    try:
        import onnxruntime
    except ImportError:
        import onnx
        import onnx.reference

        reference = onnx.reference.ReferenceEvaluator(io.BytesIO(content))
        return f"onnx reference {onnx.__version__}", lambda pixels: reference.run(None, {INPUT: pixels})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # beside torch's threads more of them only spin
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return f"onnxruntime {onnxruntime.__version__}", lambda pixels: session.run(None, {INPUT: pixels})
