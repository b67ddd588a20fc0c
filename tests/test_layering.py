"""The direction of the imports: the table of modules, what each may import, and the proof that
the counting core needs no torch.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import ninlab
from tests.processes import run

PACKAGE = Path(ninlab.__file__).parent
ANYONE = {"errors", "steps", "units", "__init__"}
"""Imported by whoever likes: what errors are, how quantities are written, what a step has."""

# module: (modules of ninlab beside ANYONE, third-party packages). A module that is not here fails.
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "__init__": (set(), set()),
    "errors": (set(), set()),
    "exits": (set(), set()),
    "units": (set(), set()),
    "steps": (set(), set()),
    # the counting core: what a reader can follow with paper
    "layers": (set(), set()),
    "architectures": ({"layers"}, set()),
    "reports": (set(), {"pandas"}),
    "shapes": ({"architectures", "layers"}, set()),
    "tape": ({"architectures", "layers", "reports", "shapes"}, set()),
    "liveness": ({"architectures", "reports", "tape"}, set()),
    "formulas": ({"architectures", "liveness", "reports", "shapes"}, set()),
    "allocator": ({"reports"}, set()),
    "workspaces": ({"reports"}, set()),
    "split_sums": ({"workspaces"}, set()),
    "cudnn": ({"split_sums", "workspaces"}, set()),
    "reductions": (set(), set()),
    "devices": (set(), set()),
    "roofline": ({"architectures", "devices", "reports", "tape"}, set()),
    "torch_private": (set(), {"torch"}),
    # the second opinion: never architectures, never formulas
    # networks: to look a name up; devices: to check one
    "resources": (
        {
            *("allocator", "cudnn", "devices", "fused", "networks", "optimizers"),
            *("reductions", "reports", "torch_private", "workspaces"),
        },
        {"fvcore", "pandas", "torch"},
    ),
    # what runs
    "networks": ({"architectures", "layers", "shapes"}, {"torch"}),
    "optimizers": (set(), {"torch"}),
    "data_files": ({"exits"}, {"filelock", "torchvision"}),  # only to download
    "data": ({"data_files"}, {"numpy", "torch"}),
    "fused": ({"networks", "torch_private"}, {"torch", "triton"}),
    "recipes": (set(), set()),
    "published": (set(), set()),
    "records": ({"recipes"}, {"annotated_types", "pandas", "pydantic", "pydantic_core"}),
    "relapses": ({"records"}, set()),
    "races": ({"architectures", "records"}, set()),
    "twins": ({"records"}, set()),
    "handover": ({"exits", "records"}, set()),
    "comparisons": ({"devices", "records", "relapses"}, {"scipy"}),
    "decisions": ({"comparisons", "records"}, set()),
    "power": ({"comparisons", "records"}, {"scipy"}),
    "peers": ({"architectures", "layers", "formulas", "records", "shapes"}, {"pandas"}),
    "machine": ({"records"}, {"torch"}),
    "environment": ({"machine", "records", "torch_private"}, {"torch"}),
    "training": (
        {
            *("architectures", "data", "data_files", "environment", "fused", "machine"),
            *("networks", "optimizers", "recipes", "records", "torch_private"),
        },
        {"safetensors", "torch"},
    ),
    "measurement": (
        {"environment", "networks", "optimizers", "records", "reports", "torch_private"},
        {"torch"},
    ),
    "predictions": (
        {
            *("allocator", "architectures", "devices", "measurement", "records", "reports"),
            *("resources", "roofline", "workspaces"),
        },
        {"torch"},
    ),
    "memory": (
        {"architectures", "formulas", "measurement", "peers", "predictions"},
        {"pandas", "torch"},
    ),
    "memory_laws": ({"records"}, {"pandas"}),
    "starting": ({"architectures", "networks", "starts"}, {"torch"}),
    "starts": ({"architectures", "layers", "records", "shapes"}, set()),
    "profiles": ({"architectures", "devices", "records", "reports", "roofline"}, set()),
    "timing": (
        {
            *("architectures", "comparisons", "devices", "formulas", "measurement"),
            *("predictions", "records", "roofline"),
        },
        {"torch"},
    ),
    "profiling": (
        {
            *("architectures", "data", "environment", "networks", "profiles", "recipes"),
            *("torch_private", "training"),
        },
        {"torch"},
    ),
    "estimates": (
        {"architectures", "devices", "formulas", "recipes", "records", "roofline"},
        set(),
    ),
    "experiments": ({"architectures", "estimates", "recipes", "records", "relapses"}, set()),
    "answers": ({"architectures", "experiments", "layers", "recipes", "records"}, set()),
    "lost_classes": ({"comparisons", "records"}, set()),
    "readouts": ({"records"}, set()),
    "linear_readout": ({"data", "readouts", "training"}, {"torch"}),
    "failures": ({"records"}, set()),
    "watching": ({"experiments"}, set()),
    "recording": (
        {
            *("architectures", "environment", "experiments", "failures", "formulas", "records"),
            *("training", "watching"),
        },
        {"ray", "torch"},
    ),
    "selfcheck": (
        {
            *("architectures", "cudnn", "data", "data_files", "environment", "fused"),
            *("measurement", "networks", "recipes", "recording", "records", "training"),
        },
        {"safetensors", "torch"},
    ),
    # what readers see
    "figures": (
        {
            *("architectures", "layers", "formulas", "shapes", "liveness", "allocator"),
            *("devices", "workspaces"),
            *("comparisons", "lost_classes", "profiles", "races", "records", "relapses"),
            *("reports", "roofline", "tape", "twins"),
        },
        {"numpy", "pandas", "plotly"},
    ),
    "inventory": (
        {
            *("estimates", "experiments", "failures", "measurement", "predictions"),
            *("profiles", "records", "relapses"),
        },
        {"pandas", "torch"},
    ),
    "calculator": (
        {
            *("architectures", "devices", "formulas", "layers", "liveness", "reports"),
            *("roofline", "shapes", "tape"),
        },
        set(),
    ),
    "checks": (set(), {"nbformat"}),
    "bookext": (
        {"checks", "figures", "pages"},
        {"docutils", "jupyter_cache", "nbformat", "plotly", "sphinx"},
    ),
    "two_ideas": (set(), {"torch"}),
    "pages": (set(), {"bs4", "docutils", "sphinx"}),
}
MAY_IMPORT_ALL = {"__main__", "commands"}
TORCH_FREE = sorted(
    name for name, (_, packages) in LAYERS.items() if not packages & {"torch", "torchvision"}
)


def modules() -> dict[str, list[Path]]:
    """Files by module name; a folder with an __init__.py counts as one module."""
    found = {path.stem: [path] for path in PACKAGE.glob("*.py")}
    for init in PACKAGE.glob("*/__init__.py"):
        found[init.parent.name] = sorted(init.parent.rglob("*.py"))
    return found


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a module but those under ``if TYPE_CHECKING:``, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from run_time_nodes(node)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports, at the top or inside a function."""
    for node in run_time_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import; write it in full"
            module = node.module or ""
            folder = PACKAGE.parent.joinpath(*module.split("."))
            for alias in node.names:
                is_module = module == "ninlab" or (folder / f"{alias.name}.py").exists()
                yield f"{module}.{alias.name}" if is_module else module


def siblings_and_packages(files: list[Path]) -> tuple[set[str], set[str]]:
    """(modules of ninlab, third-party packages) that a module imports."""
    siblings, packages = set(), set()
    known = modules()
    for name in (name for path in files for name in imports(path)):
        top, _, rest = name.partition(".")
        if top == "ninlab":
            first = rest.partition(".")[0]
            siblings.add(first if first in known else "__init__")
        elif top not in sys.stdlib_module_names:
            packages.add(top)
    return siblings, packages


def test_every_module_has_its_place_in_the_table() -> None:
    assert set(modules()) - MAY_IMPORT_ALL <= set(LAYERS)


@pytest.mark.parametrize("name", sorted(set(modules()) - MAY_IMPORT_ALL))
def test_a_module_imports_only_what_its_layer_allows(name: str) -> None:
    siblings, packages = siblings_and_packages(modules()[name])
    allowed_siblings, allowed_packages = LAYERS[name]
    assert siblings <= allowed_siblings | ANYONE | {name}
    assert packages <= allowed_packages


def test_nobody_imports_the_command_line() -> None:
    for name in set(modules()) - MAY_IMPORT_ALL:
        siblings, _ = siblings_and_packages(modules()[name])
        assert not siblings & MAY_IMPORT_ALL, f"{name} imports the command line"


def test_contributing_has_a_line_for_every_module() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    laid_out = text.partition("## How the code is laid out")[2].partition("## How to add")[0]
    heads = [line.partition(":")[0] for line in laid_out.splitlines() if line.startswith("- `")]
    listed = sorted(re.findall(r"`(\w+)`", " ".join(heads)))
    assert listed == sorted(set(modules()) - {"__init__", "__main__"})


def assert_no_cycle(imported_by: Mapping[str, set[str]]) -> None:
    order: set[str] = set()
    remaining = dict(imported_by)
    while remaining:
        free = {name for name, siblings in remaining.items() if siblings <= order}
        assert free, f"these modules import one another in a circle: {sorted(remaining)}"
        order |= free
        remaining = {name: rest for name, rest in remaining.items() if name not in free}


def test_the_table_has_no_cycle() -> None:
    assert_no_cycle({name: siblings for name, (siblings, _) in LAYERS.items()})


@pytest.mark.parametrize("package", sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py")))
def test_the_modules_of_a_package_import_one_another_in_one_direction(package: str) -> None:
    inside = {path.stem: path for path in (PACKAGE / package).glob("*.py")}
    prefix = f"ninlab.{package}"
    assert_no_cycle(
        {
            module: {
                rest.removeprefix(".").partition(".")[0] or "__init__"
                for name in imports(path)
                for rest in [name.removeprefix(prefix)]
                if name == prefix or name.startswith(f"{prefix}.")
            }
            for module, path in inside.items()
        }
    )


def test_what_figures_share_knows_no_family_of_figures() -> None:
    shared = {"colors", "labels", "layout", "placing", "provenance", "themes", "words"}
    for module in shared:
        for name in imports(PACKAGE / "figures" / f"{module}.py"):
            if name.startswith("ninlab.figures"):
                assert name.rpartition(".")[2] in shared, f"{module} imports {name}"


def test_no_module_that_a_torch_free_one_imports_needs_torch() -> None:
    for name in TORCH_FREE:
        assert LAYERS[name][0] <= set(TORCH_FREE)


def test_the_torch_free_modules_load_without_torch() -> None:
    # bookext is imported by the build, where all of the book's packages are at hand.
    present = [name for name in TORCH_FREE if name in modules() and name != "__init__"]
    present.append("recording")  # only who makes runs needs torch, such as a worker's child
    run(f"""
        import importlib, sys
        sys.modules["torch"] = sys.modules["torchvision"] = None  # importing either now raises
        for name in {present!r}:
            importlib.import_module(f"ninlab.{{name}}")
    """)
