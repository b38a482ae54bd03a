"""Values have types: `dict[str, Any]` is for JSON at the edge, and for what a library takes as it is."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared/fedcervix", "coordinator", "site_agent", "cervix_study")
LOOSE = re.compile(r"^(dict|Mapping|MutableMapping)\[str, Any\]$")


SITE_FILE = "JSON files of the site: they are read and written here, with a checksum"
TOML = "tables of a TOML file, before they are checked"
LIBRARY = "what a library takes as it is"
ALLOWED = {
    "cervix_study/execution/classifiers.py": (1, "tensors by name: the study imports no torch"),
    "cervix_study/execution/executors.py": (1, LIBRARY),
    "cervix_study/records.py": (1, "cell.json: what a federation's record says beyond its results"),
    "cervix_study/settings.py": (3, TOML),
    "coordinator/home/home.py": (2, TOML),
    "shared/fedcervix/core/formats.py": (1, "an object of a file, before its reader looks at its keys"),
    "shared/fedcervix/core/events.py": (2, "the journal's JSON is read here"),
    "shared/fedcervix/models/weights.py": (3, "the JSON header of a weights file"),
    "shared/fedcervix/runtime/config.py": (7, TOML),
    "site_agent/classifier/classifier_store.py": (1, SITE_FILE),
    "site_agent/commands/data.py": (1, LIBRARY),
    "site_agent/commands/setting.py": (1, TOML),
    "site_agent/network/optimizer.py": (1, LIBRARY),
    "site_agent/report/figures.py": (1, LIBRARY),
    "site_agent/store/checksummed_records.py": (3, SITE_FILE),
    "site_agent/store/model_store.py": (1, SITE_FILE),
    "site_agent/store/provenance.py": (3, SITE_FILE),
    "site_agent/training/checkpoints.py": (1, "the JSON header of a checkpoint"),
}
"""module -> (how many, why)"""


def loose(tree: ast.Module) -> int:
    """Count the annotations `dict[str, Any]` and `Mapping[str, Any]`, also within others."""
    return sum(isinstance(node, ast.Subscript) and bool(LOOSE.match(ast.unparse(node))) for node in ast.walk(tree))


def found() -> Counter[str]:
    return Counter(
        {
            str(path.relative_to(ROOT)): count
            for package in PACKAGES
            for path in sorted((ROOT / package).rglob("*.py"))
            if not path.name.endswith("_pb2.py") and (count := loose(ast.parse(path.read_text())))
        }
    )


def test_values_have_types_beyond_json_and_libraries() -> None:
    """A new one is a dataclass; the numbers here only fall."""
    assert found() == {path: count for path, (count, _) in ALLOWED.items()}, (
        "more: make a type; fewer: lower the number"
    )


def test_what_is_loose_is_found() -> None:
    tree = ast.parse("def f(a: dict[str, Any], b: Callable[[Mapping[str, Any]], None]) -> dict[str, object]: ...")
    assert loose(tree) == 2
