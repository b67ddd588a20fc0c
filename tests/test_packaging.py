"""What is installed: the files that travel with the package, and the versions that CI runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ninlab.architectures import NIN
from ninlab.formulas import parameters
from tests.book import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lines: str) -> dict[str, str]:
    """Version by name of the distributions that lines of constraints name."""
    named = (line.partition("==") for line in lines.split() if "==" in line)
    return {canonicalize_name(name): version for name, _, version in named}


PINS = pins((ROOT / "constraints.txt").read_text())
HOSTS = {path.stem: path.read_text() for path in (ROOT / ".ci" / "hosts").glob("*.txt")}
each_host = pytest.mark.parametrize("host", HOSTS)


def requirements() -> list[Requirement]:
    """Everything that the package or one of its extras asks for."""
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return [Requirement(line) for line in lines if not line.startswith("ninlab")]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_the_version_that_ci_runs_satisfies_every_requirement(requirement: Requirement) -> None:
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_package_itself_sets_lower_bounds_only() -> None:
    for line in PROJECT["dependencies"]:
        operators = {specifier.operator for specifier in Requirement(line).specifier}
        assert operators == {">="}, f"{line} would replace what a hosted notebook brings"


@each_host
def test_a_host_of_notebooks_satisfies_every_requirement_of_the_package(host: str) -> None:
    brought = pins(HOSTS[host])
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        assert brought[canonicalize_name(requirement.name)] in requirement.specifier, line


@each_host
def test_what_a_host_lacks_is_a_requirement_of_the_package(host: str) -> None:
    _, lacking = HOSTS[host].split("# Not there")
    names = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert set(pins(lacking)) <= names


def test_ci_runs_the_notebooks_on_every_host_with_its_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    pythons = {name: re.findall(r"with Python (\S+)", text)[0] for name, text in HOSTS.items()}
    assert workflow["jobs"]["hosted"]["strategy"]["matrix"]["include"] == [
        {"host": name, "python": python} for name, python in sorted(pythons.items())
    ]
    for python in pythons.values():
        assert python in SpecifierSet(PROJECT["requires-python"])


def test_torch_and_torchvision_are_installed_as_the_pair_that_ci_runs() -> None:
    for name in ("torch", "torchvision"):
        assert metadata.version(name).partition("+")[0] == PINS[name]


def test_the_conda_environment_installs_an_extra_of_the_package_in_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, through_pip = environment["dependencies"]
    assert (python.partition("=")[0], pip) == ("python", "pip")
    versions, package = through_pip["pip"]
    assert (ROOT / versions.removeprefix("--constraint ")).name == "constraints.txt"
    (extra,) = Requirement(package.replace("--editable .", "ninlab")).extras
    assert extra in PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The package as pip would install it, built from this folder."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(ROOT)], check=True)
    (path,) = folder.glob("*.whl")
    return ZipFile(path)


def shipped(folder: Path) -> set[str]:
    """Names below the repository of the files of a folder that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line for line in listed.stdout.splitlines() if (ROOT / line).exists()}


def test_the_wheel_holds_the_whole_module(wheel: ZipFile) -> None:
    assert shipped(Path("ninlab")) <= set(wheel.namelist())


def test_the_wheel_holds_every_record(wheel: ZipFile) -> None:
    assert {f"ninlab/{name}" for name in shipped(Path("runs"))} <= set(wheel.namelist())


def test_the_wheel_holds_nothing_else(wheel: ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ninlab"}


@pytest.mark.slow
def test_the_installed_package_answers_without_the_repository(
    wheel: ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path)

    def answer(*arguments: str) -> str:
        command = [sys.executable, "-m", "ninlab", *arguments]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}  # comes before this checkout
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert f"valid records in {tmp_path / 'ninlab' / 'runs'}" in answer("runs", "--validate")
    asked = ["nin", "--device", "h100", "--batch-size", "8", "--format", "json"]
    (network,) = json.loads(answer("resources", *asked))["networks"]
    assert network["parameters"] == parameters(NIN)
    assert network["training"]["reserved_peak_bytes"] is not None  # the tables came along


def test_the_plugin_that_draws_figures_is_announced_to_myst_nb() -> None:
    (plugin,) = metadata.entry_points(group="myst_nb.mime_renderers", name="ninlab_plotly")
    assert plugin.value == "ninlab.bookext:PlotlyMime"


def test_what_installs_an_extra_makes_the_stamps_of_all_that_it_holds() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    stamps = set(re.findall(r"\$\(VENV\)/\.(\w+)", makefile))
    assert stamps <= PROJECT["optional-dependencies"].keys()
    said = dict(re.findall(r"^(\w+)_holds := (.+)$", makefile, re.MULTILINE))

    def held(extra: str) -> set[str]:
        needs = map(Requirement, PROJECT["optional-dependencies"][extra])
        inner = {name for need in needs if need.name == PROJECT["name"] for name in need.extras}
        return inner.union(*map(held, inner))

    for extra in stamps:
        assert set(said.get(extra, "").split()) == held(extra) & stamps, extra
