"""Planted canaries: pixels, file names, patients and folders that must never be found outside their site.

What travels is encrypted, so it is looked at where it is still plain: a `Link` that keeps every message and every
byte that the real agent, with its real worker, hands to the real line. Everything the coordinator writes is searched
as well.
"""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedcervix.core.compression import Packed
from fedcervix.core.events import Answer, Task
from fedcervix.core.rounds.instructions import Instruction
from fedcervix.errors import FedcervixError
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.worker_protocol import Failure
from fedcervix.transport import codec
from site_agent.data.collection import index
from site_agent.federation import incidents
from site_agent.federation.agent import Agent, Checks
from site_agent.federation.context import AgentContext
from site_agent.federation.link import GrpcLink, OnBytes
from site_agent.home import SiteHome
from site_agent.worker.worker import Worker, WorkFailedError
from tests.e2e.loopback import Federation
from tests.unit.agents import nothing

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

FOLDER = "klinik-quellenhof"
WOMEN = ("zamora", "ilsebill", "o'quinn", "björk")
FILE = "aufnahme"
PIECE_BYTES = 24
PIECES = 30


class RecordingLink:
    """The real line; `sent` keeps what leaves the site."""

    def __init__(self, link: GrpcLink) -> None:
        self._link, self.sent = link, bytearray()

    def attach(self) -> Iterator[codec.Welcome | Instruction]:
        return self._link.attach()

    def report(self, report: codec.Report) -> tuple[Answer, str]:
        self.sent += codec.write_report(report, time.time()).SerializeToString()
        return self._link.report(report)

    def sign(self, report: codec.Heartbeat) -> None:
        self.sent += codec.write_report(report, time.time()).SerializeToString()
        self._link.sign(report)

    def fetch(self, digest: str, blobs: BlobStore, on_bytes: OnBytes, *, bytes_max: int) -> None:
        self._link.fetch(digest, blobs, on_bytes, bytes_max=bytes_max)

    def push(self, digest: str, blobs: BlobStore, on_bytes: OnBytes, *, task: Task | None = None) -> None:
        self.sent += digest.encode() + blobs.path(digest).read_bytes()
        self._link.push(digest, blobs, on_bytes, task=task)

    def packed(self, digest: str) -> Packed | None:
        return self._link.packed(digest)


@pytest.fixture
def clinic(collections: dict[str, Path], tmp_path: Path) -> Path:
    """Return the manifest of a collection whose every name is a canary."""
    folder = tmp_path / FOLDER
    with (collections["nhs"] / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [["image", "patient", "label"]]
    for number, row in enumerate(rows):
        woman = WOMEN[int(row["patient"][-4:]) % len(WOMEN)]
        name = f"{woman}/{FILE}-{number:03}.jpg"
        (folder / woman).mkdir(parents=True, exist_ok=True)
        shutil.copy(collections["nhs"] / row["image"], folder / name)
        lines.append([name, f"{woman} {row['patient'][-4:]}", row["label"]])
    write(folder / "manifest.csv", lines)
    return folder / "manifest.csv"


def write(manifest: Path, lines: list[list[str]], delimiter: str = ",") -> None:
    with manifest.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(lines)


def read(manifest: Path) -> list[list[str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def pieces(data: bytes, dice: np.random.Generator) -> list[bytes]:
    """Return pieces of an image that no other file holds by chance."""
    starts = dice.integers(0, len(data) - PIECE_BYTES, 50 * PIECES)
    found = (data[start : start + PIECE_BYTES] for start in starts)
    return [piece for piece in found if len(set(piece)) > PIECE_BYTES // 2][:PIECES]


def pixel_canaries(clinic: Path, cache: Path) -> list[bytes]:
    """Return pieces of files, of decoded pixels, of the small squares trained on, and of these as float32."""
    dice = np.random.default_rng(1)
    files = sorted(clinic.parent.rglob("*.jpg"))[::8]
    squares = [np.load(file) if file.suffix == ".npy" else file.read_bytes() for file in cache.rglob("*pixels*")]
    raw = b"".join(square if isinstance(square, bytes) else square.tobytes() for square in squares)
    assert len(raw) > 10 * 32 * 32 * 3, "the site's squares of pixels were not found"
    floats = (np.frombuffer(raw[: 1 << 16], np.uint8).astype(np.float32) / 255).tobytes()
    found = pieces(raw, dice) + pieces(floats, dice)
    for file in files:
        found += pieces(file.read_bytes(), dice)[:4] + pieces(np.asarray(Image.open(file)).tobytes(), dice)[:4]
    assert len(found) > 2 * PIECES
    return found


def assert_no_names(text: bytes) -> None:
    lower = text.lower()
    for word in (FOLDER, FILE, *WOMEN):
        for spelling in (word, word.encode("ascii", "backslashreplace").decode()):  # as JSON and repr write it
            assert spelling.encode() not in lower, f"{word!r} has left the site"


def take_part(home: SiteHome, link: RecordingLink) -> Exception | None:
    """Run a real agent with a real worker in this process; return what stopped it."""
    checks = Checks(nothing, nothing, nothing)
    context = AgentContext(home, "nhs", link, lambda *_: None)
    agent = Agent(context, Worker(home, "nhs"), federation="cervix", checks=checks)
    ended: list[Exception] = []

    def run() -> None:
        try:
            agent.run()
        except FedcervixError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(90)
    assert not thread.is_alive()
    return ended[0] if ended else None


def written_by(federation: Federation) -> dict[str, bytes]:
    """Return every file of the coordinator's home and every line it printed."""
    files = [file for file in federation.home.folder.rglob("*") if file.is_file()]
    logs = [process.out for process in federation.processes]
    return {str(file.relative_to(federation.folder)): file.read_bytes() for file in [*files, *logs]}


def test_no_pixel_and_no_name_leaves_a_site_in_a_whole_run_with_failures(federate: Federate, clinic: Path) -> None:
    federation = federate(sites=("nhs",), terms={"rounds": 1, "epochs_per_round": 1})
    coordinator = federation.coordinate("--mode", "csfssl")
    home = federation.enrol("nhs", clinic)
    line = federation.link("nhs")
    link = RecordingLink(line)
    good = read(clinic)

    # One woman in two splits: the message at the site has to name her.
    splits = ["train" if number % 2 else "valid" for number in range(len(good) - 1)]
    write(clinic, [[*good[0], "split"], *([*row, split] for row, split in zip(good[1:], splits, strict=True))])
    error = take_part(home, link)
    assert isinstance(error, WorkFailedError)
    assert "ilsebill 0001" in error.explain()
    [failure] = federation.until("the failure is seen", lambda seen: seen["failures"])
    assert failure["hint"].startswith("***: patients in more than one split: ***")

    write(clinic, good)
    assert take_part(home, link) is None
    line.close()
    federation.finish(coordinator)

    pixels = pixel_canaries(clinic, home.cache)
    assert any(piece in file.read_bytes() for piece in pixels for file in home.cache.rglob("*") if file.is_file())
    left = {"what the site sent": bytes(link.sent), **written_by(federation)}
    assert len(left["what the site sent"]) > 2 * 40_000_000  # the first model, and the trained one
    assert {"coordinator/journal.db", "logs/coordinator-0.log"} <= left.keys()
    assert sum(name.endswith(".safetensors") for name in left) >= 3
    for name, content in left.items():
        assert_no_names(content)
        assert not [piece for piece in pixels if piece in content], f"pixels in {name}"


def _two_splits(lines: list[list[str]]) -> list[list[str]]:
    return [[*lines[0], "split"], *([*row, "train" if k % 2 else "test"] for k, row in enumerate(lines[1:]))]


def _some_splits(lines: list[list[str]]) -> list[list[str]]:
    return [[*lines[0], "split"], *([*row, "" if k % 3 else "valid"] for k, row in enumerate(lines[1:]))]


def _wrong_labels(lines: list[list[str]]) -> list[list[str]]:
    return [lines[0], *([row[0], row[1], row[1]] for row in lines[1:])]


def _shifted(lines: list[list[str]]) -> list[list[str]]:
    return [lines[0], *([row[2], row[0], row[1]] for row in lines[1:])]


def _absent(lines: list[list[str]]) -> list[list[str]]:
    return [lines[0], *([row[0].replace(".jpg", ".png"), row[1], row[2]] for row in lines[1:])]


def _other_case(lines: list[list[str]]) -> list[list[str]]:
    return [lines[0], *([row[0].upper(), row[1], row[2]] for row in lines[1:])]


def _two_spellings(lines: list[list[str]]) -> list[list[str]]:
    """Give every second picture of a woman to her other spelling, and the two spellings to two splits."""
    spelled = [
        [row[0], row[1].upper().replace(" ", "-") if k % 2 else row[1], row[2]] for k, row in enumerate(lines[1:])
    ]
    return [[*lines[0], "split"], *([*row, "train" if row[1].isupper() else "test"] for row in spelled)]


def _misnamed(lines: list[list[str]]) -> list[list[str]]:
    return [["image", "patient", f"{WOMEN[0]} label"], *lines[1:]]


def _twice(lines: list[list[str]]) -> list[list[str]]:
    return [*lines, *lines[1:]]


def _no_header(lines: list[list[str]]) -> list[list[str]]:
    return lines[1:]


def _one_placeholder(lines: list[list[str]]) -> list[list[str]]:
    return lines


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    "damage",
    [
        _two_splits,
        _some_splits,
        _wrong_labels,
        _shifted,
        _absent,
        _other_case,
        _two_spellings,
        _misnamed,
        _twice,
        _no_header,
        _one_placeholder,
    ],
)
def test_no_name_leaves_a_site_with_the_report_of_its_failure(
    clinic: Path, tmp_path: Path, damage: Callable[[list[list[str]]], list[list[str]]], delimiter: str
) -> None:
    lines = read(clinic)
    if damage is _one_placeholder:  # the same picture under every patient
        first = clinic.parent / lines[1][0]
        for row in lines[2:]:
            shutil.copy(first, clinic.parent / row[0])
    write(clinic, damage(lines), delimiter)
    home = SiteHome(tmp_path / "site")
    home.incidents.mkdir(parents=True)
    home.config_file.write_text(f'[data]\nmanifest = "{clinic}"\n')

    with pytest.raises(FedcervixError) as caught:
        index(clinic)
    error = caught.value
    failed = WorkFailedError(Failure.of(error, error, "reading images"))
    report = incidents.record(home, "nhs", failed, at=1.0)
    [account] = home.incidents.iterdir()
    told = account.read_text()
    assert all(line.strip() in told for line in error.what.splitlines())  # at the site nothing is hidden
    message: Any = codec.write_report(report, 1.0)
    assert_no_names(message.SerializeToString())
    assert len(report.hint.replace("*", "").split()) >= 3, f"nothing is left to go by: {report.hint}"
