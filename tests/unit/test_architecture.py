"""Who may import whom, and what nobody may do. A failure quotes the sentence that is broken."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import import_graph

ROOT = Path(__file__).parents[2]
SOURCES = {package: ROOT / folder for package, folder in import_graph.PACKAGES.items()}
GRAPHS, _ = import_graph.read(ROOT)
STDLIB = sys.stdlib_module_names


@dataclass(frozen=True, slots=True)
class Import:
    """One name that a module brings in: `from a import b` brings in a.b."""

    by: str
    line: int
    name: str

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.by}, line {self.line}, imports {self.name}"


def module_name(path: Path, package: str) -> str:
    parts = path.relative_to(SOURCES[package]).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


def modules() -> dict[str, ast.Module]:
    """Return every module of the project by its name; what protoc generated is not ours."""
    return {
        module_name(path, package): ast.parse(path.read_text())
        for package, folder in SOURCES.items()
        for path in sorted(folder.rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    }


MODULES = modules()


def imports(name: str, tree: ast.Module) -> Iterator[Import]:
    """Yield what a module imports, also inside its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(name, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: a relative import"
            yield from (Import(name, node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


ALL = [found for name, tree in MODULES.items() for found in imports(name, tree)]


def of(package: str) -> list[Import]:
    return [found for found in ALL if found.by.partition(".")[0] == package]


def own(name: str) -> str | None:
    """Return the project's module that an imported name lies in: fedcervix.errors.DataError, fedcervix.errors."""
    parts = name.split(".")
    return next((m for n in range(len(parts), 0, -1) if (m := ".".join(parts[:n])) in MODULES), None)


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` of an expression that is one; empty for any other."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{base}.{node.attr}" if isinstance(node, ast.Attribute) and (base := dotted(node.value)) else ""


def calls(name: str) -> Iterator[tuple[str, str]]:
    """Yield (what is called, the call's text) for every call in a module."""
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Call):
            yield dotted(node.func), ast.unparse(node)


# --- shared/fedcervix ---------------------------------------------------------------------------------------------

FOREIGN = {
    "doctor": "click",
    "models": "numpy",
    "monitoring": "prometheus_client starlette",
    "page": "click starlette uvicorn",
    "transport": "cryptography google grpc",
    "trust": "cryptography numpy",
    "lineage": "rich",
    "runtime": "click pydantic pydantic_core rich structlog",
}
"""What the folders of the library import from outside the standard library; the others nothing."""


def test_a_folder_of_the_library_imports_only_its_packages() -> None:
    for found in of("fedcervix"):
        allowed = {*STDLIB, "fedcervix", *FOREIGN.get(folder_of(found.by), "").split()}
        assert found.top in allowed, f"{found}. {test_a_folder_of_the_library_imports_only_its_packages.__name__}"


def test_the_library_has_no_circles() -> None:
    edges = {name: {o for found in imports(name, tree) if (o := own(found.name))} for name, tree in MODULES.items()}
    for name in edges:
        assert name not in reach(edges, edges[name] - {name}), f"{name} imports itself by way of others"


def reach(edges: dict[str, set[str]], start: set[str]) -> set[str]:
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(edges[name])
    return seen


PURE = ("errors", "core")
OUTSIDE = {
    "os",
    "pathlib",
    "socket",
    "subprocess",
    "threading",
    "time",
    "datetime",
    "random",
    "secrets",
    "uuid",
    "logging",
}


def test_the_core_knows_no_network_clock_disk_or_tensor() -> None:
    """The design: "The federation's state machine knows no network, clock, disk or tensor"."""
    for found in of("fedcervix"):
        if folder_of(found.by) in PURE:
            assert found.top not in OUTSIDE, f"{found}: {test_the_core_knows_no_network_clock_disk_or_tensor.__doc__}"
    for name in MODULES:
        for called, text in calls(name) if name.startswith("fedcervix.") and folder_of(name) in PURE else ():
            assert called not in ("open", "print", "input"), text


def test_json_is_parsed_in_one_place() -> None:
    """The standard library's parser raises more than a ValueError: fedcervix.json_text turns all of it into one."""
    for name in MODULES:
        if name != "fedcervix.json_text":
            for called, text in calls(name):
                assert called not in ("json.loads", "json.load"), f"{name}: {text}"


# --- the two roles ------------------------------------------------------------------------------------------------

TORCH = {"torch", "torchvision"}
HEAVY = TORCH | {"sklearn", "PIL", "matplotlib", "jinja2"}


def test_torch_lives_in_site_agent_only() -> None:
    for found in ALL:
        package = found.by.partition(".")[0]
        if package != "site_agent":
            absent = TORCH if package == "cervix_study" else HEAVY
            assert found.top not in absent, f'{found}. The design: "Torch lives in `site_agent/` only."'


def test_the_two_roles_never_import_each_other() -> None:
    sentence = 'The design: "The two roles never import each other."'
    assert not [str(found) for found in of("coordinator") if found.top == "site_agent"], sentence
    assert not [str(found) for found in of("site_agent") if found.top == "coordinator"], sentence
    assert not [str(found) for found in of("fedcervix") if found.top in ("coordinator", "site_agent")], sentence


def test_nobody_knows_the_study() -> None:
    """It stands on all others: what hospitals run does not depend on it."""
    for found in ALL:
        assert found.top != "cervix_study" or found.by.startswith("cervix_study"), f"{found}. " + str(
            test_nobody_knows_the_study.__doc__
        )


def test_shared_is_a_source_root() -> None:
    for found in ALL:
        assert found.top != "shared", f'{found}. The design: "`shared/` is a *source root*, not a package"'


def test_the_worker_process_never_imports_grpc() -> None:
    """The design: "a spawned worker process that never imports grpc"; also not by way of others."""
    edges = {name: {o for found in imports(name, tree) if (o := own(found.name))} for name, tree in MODULES.items()}
    for name in sorted(reach(edges, {"site_agent.worker.worker_process"})):
        for found in imports(name, MODULES[name]):
            assert found.top != "grpc", f"{found}. {test_the_worker_process_never_imports_grpc.__doc__}"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import coordinator.cli", sorted(HEAVY)),
        ("import cervix_study.commands.run", [*sorted(TORCH), "sklearn", "grpc", "submitit"]),
        (
            "import fedcervix.core.rounds.step, fedcervix.core.session",
            [*sorted(HEAVY), "numpy", "grpc", "google.protobuf", "pydantic"],
        ),
    ],
)
def test_what_a_process_has_loaded(statement: str, absent: list[str]) -> None:
    """The design: "`import coordinator` never imports torch: an architecture test says so"."""
    script = f"{statement}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- folders ------------------------------------------------------------------------------------------------------

DIVIDED = tuple(import_graph.PACKAGES)
"""packages that are divided into folders; a module at the top of a package counts as a folder of its own"""
PASSES_ON = {"site_agent.phantom"}
"""folders whose `__init__` gives names of its modules; all others are entered by the module that is meant"""
NO_TORCH = {"site_toml", "home", "images", "store", "federation", "phantom", "cli"}
"""folders of site_agent that import no torch"""


def folders(package: str) -> dict[str, set[str]]:
    """Return the table in a package's docstring: folder -> the folders it may import from, in the table's order."""
    doc = importlib.import_module(package).__doc__
    assert doc is not None
    found: dict[str, set[str]] = {}
    for line in doc.splitlines():
        if line.startswith(" " * 5):
            found[list(found)[-1]] |= set(line.split())
        elif line.startswith(" " * 4):
            name, *others = line.split()
            found[name] = set(others) - {"-"}
    return found


def folder_of(name: str) -> str:
    """Return the folder of a module: site_agent.data.pixel_cache is in data, site_agent.home in home."""
    return import_graph.box_of(name) if "." in name else ""


def arrows(package: str) -> dict[str, set[str]]:
    """Return the folders of a package as they are: folder -> the folders it imports from."""
    boxes = GRAPHS[package].boxes
    return {name: set(boxes.successors(name)) for name in boxes}


@pytest.mark.parametrize("package", DIVIDED)
def test_a_folder_imports_from_those_that_its_line_names(package: str) -> None:
    sentence = f"The table in {package}/__init__.py says which folders there are, and who may import whom"
    there, allowed = arrows(package), folders(package)
    assert there.keys() == allowed.keys(), sentence
    for name, others in there.items():
        assert others <= allowed[name], f"{name} imports from {sorted(others - allowed[name])}. {sentence}"
        assert others >= allowed[name], f"{name} imports nothing of {sorted(allowed[name] - others)}: narrow its line"


@pytest.mark.parametrize("package", DIVIDED)
def test_a_folder_imports_only_from_lines_above_its_own(package: str) -> None:
    order = list(folders(package))
    for name, others in folders(package).items():
        later = {other for other in others if order.index(other) > order.index(name)}
        assert not later, f"{name} imports from {sorted(later)}, whose lines come later in the table"


@pytest.mark.parametrize("package", DIVIDED)
def test_the_page_has_the_same_table(package: str) -> None:
    _, _, rest = (ROOT / "docs" / "architecture.md").read_text().partition(f"\n### `{package}/`\n")
    lines = [line for line in rest.partition("\n#")[0].splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = [row[0].strip("`").removesuffix("/").removesuffix(".py") for row in cells]
    shown = {name: set(re.findall(r"`(\w+)`", row[2])) for name, row in zip(names, cells, strict=True)}
    assert shown == folders(package)


@pytest.mark.parametrize("package", DIVIDED)
def test_a_folder_is_entered_by_the_module_that_is_meant(package: str) -> None:
    """What an `__init__` imports, everybody loads who wants anything of that folder."""
    for found in of(package):
        folder = SOURCES[package] / found.by.partition(".")[2].replace(".", "/")
        if (folder / "__init__.py").exists() and found.by not in {*PASSES_ON, package}:
            pytest.fail(f"{found}. {test_a_folder_is_entered_by_the_module_that_is_meant.__doc__}")


def test_the_modules_of_rounds_import_from_those_above_in_its_table() -> None:
    doc = importlib.import_module("fedcervix.core.rounds").__doc__ or ""
    table = doc.partition("Modules, from bottom to top")[2].split("\n\n")[1]
    order = [f"fedcervix.core.rounds.{line.split()[0]}" for line in table.splitlines()]
    assert {name for name in MODULES if name.startswith("fedcervix.core.rounds.")} == set(order)
    for found in of("fedcervix"):
        if found.by in order and (name := own(found.name)) in order:
            assert order.index(name) < order.index(found.by), f"{found}, which stands below it in the table"


def test_grpc_is_used_in_one_folder_of_the_site_and_torch_not_in_all() -> None:
    for found in of("site_agent"):
        here = folder_of(found.by)
        assert found.top != "grpc" or here == "federation", f"{found}: only site_agent/federation/ speaks with anybody"
        assert found.top not in TORCH or here not in NO_TORCH, f"{found}: {here} works without torch"


# --- names --------------------------------------------------------------------------------------------------------


def test_a_public_class_has_a_name_of_its_own() -> None:
    homes: dict[str, list[str]] = {}
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name)
    shared = {name: found for name, found in homes.items() if len(found) > 1}
    assert shared == {}, "One name, one thing: a reader who knows one of them takes the other for it"


def given_twice(tree: ast.Module) -> set[str]:
    """Return the names that a module gives to two values at its top."""
    nodes = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [target for node in nodes for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    names = Counter(
        name.id
        for one in targets
        for name in (one.elts if isinstance(one, ast.Tuple) else [one])
        if isinstance(name, ast.Name)
    )
    return {name for name, count in names.items() if count > 1}


def test_a_name_of_a_module_has_one_value() -> None:
    """A bound was once defined a second time further down in its file: the first one, stricter, no longer held."""
    assert {name: found for name, tree in MODULES.items() if (found := given_twice(tree))} == {}
    assert given_twice(ast.parse("A, B = 1, 2\nC: int = 3\nB = 4\nA.x = 5")) == {"B"}


# --- what nobody may do -------------------------------------------------------------------------------------------

PICKLE = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}


def test_no_pickle_anywhere() -> None:
    """The design: "No pickle anywhere, on the wire or on disk, in either direction"."""
    sentence = test_no_pickle_anywhere.__doc__
    for found in ALL:
        error = found.name == "pickle.UnpicklingError"  # what torch.load raises for a file that it refuses
        assert found.top not in PICKLE or error, f"{found}. {sentence}"
        assert found.name not in ("torch.save", "torch.load"), f"{found}. {sentence}"
    loads = []
    for name in MODULES:
        for called, text in calls(name):
            assert called != "torch.save", f"{name}: {text}. {sentence}"
            assert "allow_pickle=True" not in text, f"{name}: {text}. {sentence}"
            loads += [(name, text)] if called == "torch.load" else []
    assert [name for name, _ in loads] == ["site_agent.network.first_weights"], f"{loads}. {sentence}"
    assert "weights_only=True" in loads[0][1], f"{loads[0]}. {sentence}"


WAITS = {"sleep", "wait", "wait_for", "get", "join", "poll", "select", "acquire"}
NAPS_ALLOWED = {
    ("coordinator.run.streams", "bell.wait(PICTURE_S)"): "only while an operator watches: "
    "progress wakes nobody, and a person wants to see it move",
    ("site_agent.page.feeding", "stop.wait(LOOK_S)"): "while a page is open: no disk tells who drops a lock",
    (
        "site_agent.page.gpus",
        "stop.wait(READ_S)",
    ): "while a page is open: a GPU tells what it is asked",
    ("coordinator.calls.dispatch", "asyncio.sleep(pause_s)"): "a call's turn, which comes by the clock alone",
    ("coordinator.calls.serving", "asyncio.sleep(pause_s)"): "until a certificate is due, by the clock alone",
    (
        "fedcervix.notify.courier",
        "self._ending.wait(LOOK_S)",
    ): "a courier takes no part in the engine, so nobody wakes it",
    ("fedcervix.notify.courier", "self._never.wait(AT_THE_END_S)"): "a receiver that failed, for the 15 s after a run",
}


def numeric(node: ast.expr | None) -> bool:
    """Say whether an expression is a number as it stands: 5, -0.5, 60 * 2."""
    if isinstance(node, ast.UnaryOp):
        return numeric(node.operand)
    if isinstance(node, ast.BinOp):
        return numeric(node.left) and numeric(node.right)
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def number_names(tree: ast.Module) -> set[str]:
    """Return the names that a module gives to numbers: RETRY_S = 5.0."""
    given = [(node.targets[0], node.value) for node in tree.body if isinstance(node, ast.Assign)]
    return {name.id for name, value in given if isinstance(name, ast.Name) and numeric(value)}


def naps(tree: ast.Module, constants: set[str]) -> Iterator[str]:
    """Yield every sleep, and every wait in a loop whose bound is a number or a name of one: the text of the call."""
    looped = {id(inner) for loop in ast.walk(tree) if isinstance(loop, ast.For | ast.While) for inner in ast.walk(loop)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else dotted(node.func)
        bounds = [*node.args, *(keyword.value for keyword in node.keywords)]
        fixed = any(numeric(bound) or dotted(bound).rpartition(".")[2] in constants for bound in bounds)
        if name == "sleep" or (name in WAITS and fixed and id(node) in looped):
            yield ast.unparse(node)


def test_nobody_naps() -> None:
    """The design: "no fixed-interval polling anywhere". Who waits is woken, or waits longer each time."""
    constants = set().union(*map(number_names, MODULES.values()))
    roles = {name: tree for name, tree in MODULES.items() if not name.startswith("cervix_study")}
    found = {(name, text) for name, tree in roles.items() for text in naps(tree, constants)}
    assert found == NAPS_ALLOWED.keys(), f"{sorted(found ^ NAPS_ALLOWED.keys())}. {test_nobody_naps.__doc__}"


DRAWING = {"random", "randint", "choice", "shuffle", "sample", "uniform", "gauss", "seed", "manual_seed"} | {
    "rand",
    "randn",
    "randperm",
    "normal",
    "bernoulli",
    "multinomial",
    "permutation",
}


def test_nobody_draws_from_a_global_generator() -> None:
    """fedcervix.core.seeds, rule 1: "No module of this project draws from a global generator"."""
    for name in MODULES:
        for called, text in calls(name):
            module, _, function = called.rpartition(".")
            drawn = module in ("random", "np.random", "numpy.random", "torch") and function in DRAWING
            own_generator = module == "torch" and "generator=" in text
            assert own_generator or not drawn, f"{name}: {text}. {test_nobody_draws_from_a_global_generator.__doc__}"


def test_no_module_is_called_after_nothing() -> None:
    """STYLE, 10: "Domain nouns; no manager, helper, util, base, common"."""
    empty = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc", "tools"}
    assert not [name for name in MODULES if empty & {*name.split(".")}], test_no_module_is_called_after_nothing.__doc__


# --- the generated code -------------------------------------------------------------------------------------------


def test_the_generated_code_is_what_the_proto_gives(tmp_path: Path) -> None:
    """The design: "only generated code lives in `wire/`; CI regenerates it and fails on a difference"."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    made = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Ifedcervix/wire=protos", *made, "protos/federation.proto"]
    subprocess.run(command, cwd=ROOT, check=True)
    for name in ("federation_pb2.py", "federation_pb2.pyi"):
        fresh, kept = tmp_path / "fedcervix" / "wire" / name, SOURCES["fedcervix"] / "wire" / name
        assert fresh.read_text() == kept.read_text(), f"{name} differs: run `make proto`. " + str(
            test_the_generated_code_is_what_the_proto_gives.__doc__
        )
    wire = {path.name for path in (SOURCES["fedcervix"] / "wire").iterdir() if path.suffix in (".py", ".pyi")}
    assert wire == {"__init__.py", "federation_pb2.py", "federation_pb2.pyi"}


# --- the test tests -----------------------------------------------------------------------------------------------


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b, c\nfrom d import e as f, g\ndef h():\n    from i.j import k\n    if 1:\n        import l\n"
    assert [found.name for found in imports("x", ast.parse(source))] == ["a.b", "c", "d.e", "d.g", "i.j.k", "l"]


def test_naps_are_found() -> None:
    fixed = ("event.wait(0.5)", "c.wait_for(lambda: x, timeout=RETRY_S)", "q.get(timeout=a.RETRY_S)", "t.join(2 * 3)")
    free = (
        "event.wait()",
        "event.wait(left_s)",
        "', '.join(PARTS)",
        "known.get(name, 'x')",
        "event.wait(pauses.next_s())",
    )
    for text in (*fixed, *free):
        found = list(naps(ast.parse(f"while True:\n    if y:\n        {text}"), {"RETRY_S"}))
        assert found == ([ast.unparse(ast.parse(text))] if text in fixed else []), text
    assert list(naps(ast.parse("event.wait(0.5)\ntime.sleep(pause_s)"), set())) == ["time.sleep(pause_s)"]
    assert number_names(ast.parse("A_S = 5.0\nB = -2 * 3\nC = 'x'\nD = E = 1")) == {"A_S", "B", "D"}


def test_the_table_is_read_from_the_docstring() -> None:
    table = folders("fedcervix")
    assert table["core"] <= {"errors", "json_text", "printable"}
    assert {"core", "errors"} <= table["transport"]
    assert own("fedcervix.core.plan.Plan") == "fedcervix.core.plan"
    assert own("numpy.typing") is None
