"""The papers for the data protection officer: made again they are the same, and nothing of a patient is in them."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag
from xml.etree import ElementTree

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Terms
from fedcervix.errors import ConfigError
from fedcervix.trust.fingerprints import Fingerprint
from site_agent.dossier.controls import CONTROLS
from site_agent.dossier.facts import facts
from site_agent.dossier.flow import flow
from site_agent.dossier.writing import INDEX, files, write
from site_agent.home import SiteHome, create, pin
from site_agent.manifest.splits import HEADER
from site_agent.store.egress import Egress
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import TrainResult
from tests.unit.audit_sheets import sheet
from tests.unit.ledgers import RUN, Ledgers, deliver
from tests.unit.sites import plan_of, site

PATIENTS = ("case-0042", "HOSP/77-19", "Ms Jane Roe")
PICTURES = ("a1b2c3d4e5f60718", "0f1e2d3c4b5a6978")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    """A site that has taken part in a run with a signed ledger, was audited, and has written down what left."""
    played = Ledgers(tmp_path_factory.mktemp("federation"))
    kept, stream = played.attached("nhs")
    played.attach()
    played.play_round()
    deliver(kept, stream)
    found = played.site("nhs")
    manifest = played.folder / "data of Ms Jane Roe" / "manifest.csv"
    create(found, manifest=manifest, coordinator="coordinator.example:8443")
    pin(found, "alts", _fingerprint(played, "alts"))
    rows = [
        ",".join(HEADER),
        *(
            f"{who},{part},{PICTURES[0]} {PICTURES[1]}"
            for who, part in zip(PATIENTS, ("train", "train", "test"), strict=True)
        ),
    ]
    found.splits.write_text("\n".join(rows) + "\n")
    RunStore(found.run_folder(RUN)).note(
        1, TrainResult(digest="", images=7, steps=1, loss=1.0, seconds=1.0, audit=sheet(0.61))
    )
    egress = Egress(found.egress, "coordinator.example:8443", clock_s=lambda: 1e9)
    with egress.model("ab" * 32, 0, 1000, Task(RUN, TaskKind.TRAIN, 1, "cd" * 32)) as on_bytes:
        on_bytes(1000, 1000)
    egress.talk("ping", 20, RUN)
    return found


def _fingerprint(played: Ledgers, name: str) -> Fingerprint:
    return Fingerprint.parse(played.site(name).certificate().key_fingerprint)


def made(home: SiteHome) -> dict[str, str]:
    return {name: content.decode() for name, content in files(home, facts(home)).items()}


def test_made_again_it_is_the_same_byte_for_byte(home: SiteHome, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, files(home, facts(home)))
    write(tmp_path / "two", files(home, facts(home)))
    one, two = (
        {
            str(file.relative_to(tmp_path / name)): file.read_bytes()
            for file in (tmp_path / name).rglob("*.*")
            if file.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) >= 15


def test_nothing_of_a_patient_is_in_it(home: SiteHome) -> None:
    for name, text in made(home).items():
        for word in (*PATIENTS, *PICTURES, "manifest.csv", str(home.folder)):
            assert word not in text, (name, word)
            assert word not in name


def test_every_link_leads_to_a_file_of_the_dossier(home: SiteHome) -> None:
    found = made(home)
    for name, text in found.items():
        if name.endswith(".html"):
            page = Links()
            page.feed(text)
            assert not [target for target in page.found if urldefrag(target).url not in found], name
            assert not page.loaded, f"{name} loads {page.loaded}"
    assert {"dpia.html", "controls.html", "egress.html", f"runs/{RUN}/plan.json"} <= found.keys()


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            self.found.append(values["href"] or "")
        if tag in ("script", "img", "iframe", "link") or "src" in values:
            self.loaded.append(tag)


def test_it_says_what_happened(home: SiteHome) -> None:
    found = made(home)
    agreed = found["agreements.html"]
    assert RunStore(home.run_folder(RUN)).plan().digest in agreed
    assert "does not hold" not in agreed
    approved = re.findall(r'<th scope="row">(nhs|alts)</th>', agreed)
    assert sorted(approved) == ["alts", "nhs"]
    assert "coordinator.example:8443" in found["egress.html"]
    [model, talk] = json.loads(found["egress.json"])["left"]
    assert (model["bytes"], model["sha256"], model["at_unix_s"]) == (1000, "ab" * 32, 1e9)
    assert talk["bytes_exact"] is False
    assert "Training women can be told from others" in found["audit.html"]
    assert "3 patients (2 trained on, 1 to test)" in found["dpia.html"]
    assert 'class="blank"' in found["dpia.html"]


def test_a_ledger_that_was_changed_is_not_shown_as_evidence(home: SiteHome, tmp_path: Path) -> None:
    copy = SiteHome(tmp_path / "home")
    _copy(home.folder, copy.folder)
    ledger = copy.run_folder(RUN) / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"round":1', '"round":2', 1))
    copy.egress.write_text(copy.egress.read_text().replace("1000", "1001", 1))
    found = made(copy)
    assert "The signed ledger does not hold" in found["agreements.html"]
    assert "The egress ledger does not hold" in found["egress.html"]
    assert json.loads(found["egress.json"])["left"] == []


def _copy(source: Path, to: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            (to / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (to / file.relative_to(source)).write_bytes(file.read_bytes())


def test_a_control_without_evidence_is_blank(home: SiteHome, tmp_path: Path) -> None:
    row = re.compile(r"<tr>.*?</tr>", re.DOTALL)
    rows = [one for one in row.findall(made(home)["controls.html"]) if 'scope="row"' in one]
    assert len(rows) == len(CONTROLS)
    for text, (_, number, _, file) in zip(rows, CONTROLS, strict=True):
        if file == "mlbom.cdx.json" or not file:
            assert 'class="blank"' in text, number
        else:
            assert f'href="{file}"' in text, number
    empty = SiteHome(tmp_path / "empty")
    create(empty)
    controls = made(empty)["controls.html"]
    assert 'href="audit.html">audit' not in controls.split("<main>")[1]
    assert 'href="sbom.cdx.json"' in controls


def test_the_bills_are_cyclonedx_and_name_what_is_installed(home: SiteHome) -> None:
    found = made(home)
    for name in ("sbom.cdx.json", "mlbom.cdx.json"):
        bill = json.loads(found[name])
        wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(found[name])
        assert wrong is None, str(wrong)[:500]
        assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
        assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    packages = json.loads(found["sbom.cdx.json"])
    refs = [one["bom-ref"] for one in packages["components"]]
    assert len(set(refs)) == len(refs)
    assert {"numpy", "cryptography", "fedcervix"} <= {one["name"] for one in packages["components"]}
    needs = {one["ref"]: one["dependsOn"] for one in packages["dependencies"]}
    assert set(needs) == set(refs)
    assert {need for all_ in needs.values() for need in all_} <= set(refs)
    [ours] = [ref for ref in refs if ref.startswith("pkg:pypi/fedcervix@")]
    assert any(need.startswith("pkg:pypi/grpcio@") for need in needs[ours])


def test_names_become_no_markup(home: SiteHome) -> None:
    odd = dataclasses.replace(facts(home), site="<b>&", coordinator="x</text><script>")
    picture = ElementTree.fromstring(flow(odd))
    assert "Hospital: <b>&" in "".join(picture.itertext())
    assert not picture.findall(".//{http://www.w3.org/2000/svg}script")
    pages = {name: text.decode() for name, text in files(home, odd).items() if name.endswith(".html")}
    assert all("<script" not in text and "<b>&" not in text for text in pages.values())


def test_a_folder_with_something_else_is_left_alone(home: SiteHome, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else than a dossier"):
        write(tmp_path, files(home, facts(home)))
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_no_longer_true_goes(tmp_path: Path) -> None:
    write(tmp_path / "dossier", {INDEX: b"1", "runs/old/plan.json": b"2"})
    (tmp_path / "dossier" / "note.txt").write_text("of a person")
    write(tmp_path / "dossier", {INDEX: b"3"})
    kept = sorted(file.name for file in (tmp_path / "dossier").rglob("*") if file.is_file())
    assert kept == ["files.json", "index.html", "note.txt"]


def test_an_address_stands_on_one_line_whatever_stands_around_it(home: SiteHome) -> None:
    texts = made(home)
    cells = [cell for text in texts.values() for cell in re.findall(r"<td>(.*?)</td>", text) if ":8443" in cell]
    assert len(cells) >= 2
    assert all('<span class="whole">coordinator.example:8443</span>' in cell for cell in cells)
    assert all(".whole { white-space: nowrap; }" in texts[name] for name in texts if name.endswith(".html"))


def test_the_command_of_a_site_that_has_joined_nothing(tmp_path: Path) -> None:
    clinic = site(tmp_path)
    clinic.take_part(RUN, plan_of(1))
    clinic.adopt(RUN, plan_of(1))
    said = clinic.run("dossier")
    folder = clinic.home.folder / "dossier"
    assert str(folder / INDEX) in said.stdout
    texts = {file: file.read_text() for file in folder.rglob("*") if file.is_file()}
    words = {word for image, patient, _, _ in clinic.rows() for word in (image, patient)}
    assert not [(file, word) for file, text in texts.items() for word in words if word in text]
    [model] = json.loads((folder / "mlbom.cdx.json").read_text())["components"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"][0]["content"]
    assert all(file.stat().st_mode & 0o077 == 0 for file in texts)


def test_a_picture_names_each_form_in_which_models_left(home: SiteHome) -> None:
    known = facts(home)
    [run, *_] = known.runs
    masked = Terms(secure_sum=True, holders=("nhs",))
    plans = [
        dataclasses.replace(run.plan, sites=("nhs", "alts", "cuba"), mode=mode, terms=terms)
        for mode, terms in (("csfssl", Terms()), ("csfssl", masked), ("ppfssl", Terms(sealed=True)))
    ]
    runs = tuple(dataclasses.replace(run, plan=plan) for plan in plans)
    words = ("model weights", "masked weights (secure sums)", "encrypted weights (sealed ring)")
    for one, word in zip(runs, words, strict=True):
        picture = flow(dataclasses.replace(known, runs=(one,)))
        assert [other for other in words if other in picture] == [word]
    picture = flow(dataclasses.replace(known, runs=runs))
    assert all(word in picture for word in words), "one secure run hides nothing of the others"
