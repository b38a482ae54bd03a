"""The pictures of the code are drawn from the code as it is."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.walked_code import Code, climbs
from tools import house, house_picture, import_graph, layout, walks

GRAPHS, PACKAGES = import_graph.read(house.ROOT)
CODE = Code(house.ROOT)
WALKS = (
    "An image, from the manifest to a batch",
    walks.UPDATE,
    "An event, from the wire to the journal",
    "A lease runs out, from the silence to the next instruction",
)
REDRAW = "the imports have changed since the pictures were drawn: run `make house` and commit docs/house/"


def test_the_pictures_show_the_code() -> None:
    drawn = house.pictures(house.ROOT, GRAPHS)
    assert {path.name for path in house.PICTURES.iterdir()} == drawn.keys(), REDRAW
    for name, text in drawn.items():
        assert (house.PICTURES / name).read_text(encoding="utf-8") == text, f"{name}: {REDRAW}"


@pytest.mark.parametrize("package", import_graph.PACKAGES)
def test_no_circle_and_no_arrow_upwards(package: str) -> None:
    found = GRAPHS[package].figures()
    assert (found.circles, found.arrows_upwards) == (0, 0)


def code(root: Path, files: dict[str, str]) -> Path:
    """Write packages into a folder: path below it -> text."""
    for folder in import_graph.PACKAGES.values():
        (root / folder).mkdir(parents=True)
        (root / folder / "one.py").touch()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_boxes_arrows_and_layers_are_read_from_the_imports(tmp_path: Path) -> None:
    files = {
        "coordinator/low/a.py": "",
        "coordinator/low/b.py": "import coordinator.low.a\n",
        "coordinator/high/c.py": "def f():\n    from coordinator.low.a import x\n    from fedcervix.one import y\n",
        "coordinator/cli.py": "from coordinator.high import c\n",
    }
    graphs, packages = import_graph.read(code(tmp_path, files))
    found = graphs["coordinator"]
    assert set(found.boxes.edges) == {("high", "low"), ("cli", "high")}
    assert found.layer == {"one": 1, "low": 1, "high": 2, "cli": 3}
    assert found.figures() == import_graph.Figures(5, 3, 4, 2, 3, 0, 0)
    assert [found.label(box) for box in ("low", "cli")] == ["low/", "cli.py"]
    assert set(packages.edges) == {("coordinator", "fedcervix")}


def test_a_circle_is_counted(tmp_path: Path) -> None:
    files = {
        "coordinator/a/x.py": "import coordinator.b.x\n",
        "coordinator/b/x.py": "import coordinator.a.y\n",
        "coordinator/a/y.py": "",
    }
    found = import_graph.read(code(tmp_path, files))[0]["coordinator"].figures()
    assert (found.circles, found.arrows_upwards) == (1, 2)


def test_arrows_do_not_cross_where_they_need_not_and_go_around_boxes() -> None:
    layer = {"top": 3, "a": 2, "b": 2, "x": 1, "y": 1, "z": 1}
    arrows = [("top", "a"), ("top", "b"), ("a", "y"), ("b", "x"), ("top", "z")]
    widths = dict.fromkeys(layer, 100.0)
    plan = layout.place(layer, arrows, widths)
    assert layout.crossings(plan.rows, plan.segments) == 0
    assert [segment for segment in plan.segments if "z" in segment[1]] == [("top", "z@2"), ("z@2", "z")]
    for row in plan.rows:
        for left, right in pairwise(row):
            between = (widths.get(left, layout.PASS_WIDTH) + widths.get(right, layout.PASS_WIDTH)) / 2
            assert plan.x[right] - plan.x[left] >= between


# --- walks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", WALKS)
def test_each_walk_leads_through_the_code_as_it_is(heading: str) -> None:
    steps = walks.read(house.ROOT, heading)
    assert len(steps) > 5
    assert [step.symbol for step in steps if CODE.symbol(step.symbol) is None] == []
    assert [why for step, then in pairwise(steps) if (why := CODE.objection(step, then))] == []
    assert steps[-1].onward == ""
    assert climbs(steps) <= 1, "a walk returns at most once to a function that it has shown"
    named = [
        name for step in steps for name in re.findall(r"`(\w+\.\w+)`", step.sentence) if not name.endswith(".toml")
    ]
    assert [name for name in named if not CODE.has(name)] == []


def test_a_step_that_the_code_does_not_take_is_found() -> None:
    step = walks.Step("", "fedcervix.core.session.finished", "", "call")
    assert CODE.objection(step, walks.Step("", "fedcervix.core.rounds.step", "", ""))
    assert CODE.objection(replace(step, onward="wire `PUSH`"), walks.Step("", "fedcervix.core.rounds.step", "", ""))


GUIDES = ("## Words", "## Finding your way", "## Adding an option", "## Adding a mode", "## Adding an augmentation")
FILE = re.compile(r"\[`([\w./-]+)`\]\(\.\./([\w./-]+)\)")
MADE_UP = {"label_smoothing", "load", "_size", "_mode"}
"""in the recipes: what the reader would write; `_size` and `_mode` are Pillow's"""


def test_the_page_names_files_that_exist() -> None:
    files = {f"/{path.relative_to(house.ROOT).as_posix()}" for path in house.ROOT.glob("*/**/*.py")}
    named = set(re.findall(r"`([\w/]+\.py)(?::\w+)?`", page()))
    assert sorted(name for name in named if not any(path.endswith(f"/{name}") for path in files)) == []


def test_the_page_names_what_is_in_the_code() -> None:
    linked = [(house.ROOT / path).read_text(encoding="utf-8") for _, path in FILE.findall(page())]
    texts = [*CODE.texts.values(), *linked]
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    named = set(re.findall(r"`([A-Za-z_]\w*)(?:\([^`]*\))?`", page()))
    assert len(named) > 50
    assert sorted(named - words - MADE_UP) == [], "the page names what no source file has: renamed since?"


def sentences() -> list[str]:
    """Return the sentences and cells of the parts of the page that send a reader to a file."""
    parts = re.split(r"\n(?=## )", page())
    guides = [part for part in parts if part.startswith((*GUIDES, "## Adding an image format"))]
    items = [" ".join(item.split()) for part in guides for item in re.split(r"\n(?=\n|\||\d\. )", part)]
    return [sentence for item in items for sentence in re.split(r"(?<=[.;]) | \| ", item)]


def test_a_guide_names_files_by_whole_paths_and_links_to_them() -> None:
    named = [pair for sentence in sentences() for pair in FILE.findall(sentence)]
    assert len(named) > 50
    assert [pair for pair in named if pair[0] != pair[1] or not (house.ROOT / pair[1]).exists()] == []
    bare = re.findall(r"(?<!\[)`([\w./-]+\.(?:py|proto))`", " ".join(sentences()))
    assert bare == [], "a file without its whole path, or without a link"


def test_what_a_guide_names_beside_a_file_is_in_that_file() -> None:
    missing = []
    for sentence in sentences():
        files = [(house.ROOT / path).read_text(encoding="utf-8") for _, path in FILE.findall(sentence)]
        words = set(re.findall(r"`([A-Za-z_]\w*)(?:\([^`]*)?`", FILE.sub("", sentence))) - MADE_UP
        missing += [
            (word, sentence) for word in words if files and not any(re.search(rf"\b{word}\b", t) for t in files)
        ]
    assert missing == []


def page() -> str:
    """Return the page without its blocks of commands and drawings."""
    text = (house.ROOT / walks.PAGE).read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def test_a_package_stands_above_those_that_it_imports_from() -> None:
    floor = {package: n for n, packages in enumerate(house_picture.FLOORS) for package in packages}
    assert all(floor[by] > floor[of] for by, of in PACKAGES.edges)
