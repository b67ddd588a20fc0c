"""What pip cannot install is installed where it is missing, and a failure there stops nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ninlab import data_files
from tests.book import ROOT

SCRIPT = ROOT / "tools" / "system_packages.sh"
IMAGES = "dataset-fashion-mnist"

# Debian's folder of the machine that runs the tests is out of sight.
LOOKS = """\
#!/bin/sh
exec {python} -c '
import sys
from pathlib import Path
from ninlab import data_files, exits
data_files.DEBIAN_FOLDER = Path("{debian}")
exits.run(lambda: data_files.main(sys.argv[3:]))
' "$@"
"""


@dataclass
class Machine:
    """One where nothing is installed, with an apt-get and a user that are no real ones."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache" / "ninlab" / "FashionMNIST" / "raw"

    @property
    def debian(self) -> Path:
        return self.folder / "debian"

    def program(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def apt(self) -> list[str]:
        """What apt-get was asked to install."""
        log = self.folder / "apt.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split()[-1] for line in lines if line.startswith("install ")]

    def run(
        self, *packages: str, user: int = 0, apt_ends: str = "exit 0", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The script on this machine; apt_ends is what apt-get does after it has been asked."""
        self.program("id", f"#!/bin/sh\necho {user}\n")
        self.program("apt-get", f'#!/bin/sh\necho "$@" >>{self.folder}/apt.log\n{apt_ends}\n')
        look = LOOKS.format(python=sys.executable, debian=self.debian)
        known = {
            "PATH": str(self.folder / "bin"),
            "PYTHON": str(self.program("python", look)),
            "HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }
        command = ["/bin/sh", str(SCRIPT), *packages]
        return subprocess.run(
            command, env=known | environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "bin").mkdir()
    for name in ("dirname", "mkdir", "touch"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    return Machine(tmp_path)


def lay_images(folder: Path, *leave_out: str) -> None:
    folder.mkdir(parents=True)
    for name in data_files.FILES:
        if name not in leave_out:
            (folder / f"{name}.gz").touch()


def test_images_that_are_nowhere_are_installed(machine: Machine) -> None:
    install = f"case $1 in install) mkdir -p {machine.debian}; cd {machine.debian}; touch"
    files = " ".join(f"{name}.gz" for name in data_files.FILES)
    ended = machine.run(IMAGES, apt_ends=f"{install} {files};; esac")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert machine.apt() == [IMAGES]
    assert machine.run(IMAGES).stdout == ""  # now they are there
    assert machine.apt() == [IMAGES]


@pytest.mark.parametrize("place", ["cache", "debian", "chosen", "chosen by torchvision"])
def test_images_that_ninlab_finds_are_not_installed(machine: Machine, place: str) -> None:
    chosen = machine.folder / "chosen"
    folders = {
        "cache": machine.cache,
        "debian": machine.debian,
        "chosen": chosen,
        "chosen by torchvision": chosen / "FashionMNIST" / "raw",
    }
    lay_images(folders[place])
    variables = {data_files.FOLDER_VARIABLE: str(chosen)} if place.startswith("chosen") else {}
    ended = machine.run(IMAGES, **variables)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert machine.apt() == []


def test_a_half_filled_cache_is_no_copy(machine: Machine) -> None:
    lay_images(machine.cache, "t10k-labels-idx1-ubyte")
    machine.run(IMAGES)
    assert machine.apt() == [IMAGES]


def test_no_package_mends_a_chosen_folder_that_is_wrong(machine: Machine) -> None:
    lay_images(machine.folder / "chosen", "t10k-labels-idx1-ubyte")
    for chosen in ("chosen", "no folder"):
        ended = machine.run(IMAGES, NINLAB_DATA=str(machine.folder / chosen))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert machine.apt() == []


@pytest.mark.parametrize("code", [1, 100])
def test_an_apt_that_fails_is_one_sentence_a_package_and_the_script_goes_on(
    machine: Machine, code: int
) -> None:
    ended = machine.run(IMAGES, "chromium", apt_ends=f"exit {code}")
    assert ended.returncode == 0
    assert machine.apt() == [IMAGES, "chromium"]
    images, browser = ended.stderr.splitlines()
    assert images.startswith(f"missing: {IMAGES} (the images; without it they are downloaded once)")
    assert images.endswith(f"this did not install it: apt-get install {IMAGES}")
    assert "NINLAB_CHROMIUM" in browser


def test_who_is_not_root_is_told_what_to_install(machine: Machine) -> None:
    ended = machine.run(IMAGES, user=1000)
    assert ended.returncode == 0
    assert machine.apt() == []
    assert ended.stderr.endswith(f"on Debian: apt-get install {IMAGES}\n")


def test_a_python_that_cannot_say_where_the_images_are_has_them_installed(machine: Machine) -> None:
    broken = machine.program("broken", "#!/bin/sh\nexit 1\n")
    machine.run(IMAGES, PYTHON=str(broken))
    assert machine.apt() == [IMAGES]


def test_an_unknown_package_is_refused(machine: Machine) -> None:
    ended = machine.run("chromiun")
    assert ended.returncode == 2
    assert "unknown package chromiun" in ended.stderr


# ---------------------------------------------------------------- what README.md promises


def paragraph() -> str:
    """What README.md says of the three commands' files outside the repository."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = (part for part in text.split("\n\n") if "Outside this folder they write" in part)
    return " ".join(found.split())


def test_the_readme_names_the_packages_that_make_asks_for() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    asked = re.findall(r"tools/system_packages\.sh (.+)", makefile)
    packages = {name for names in asked for name in names.split()}
    assert set(re.findall(r"`([\w-]+)`", paragraph())) == packages


def test_the_readme_names_the_folder_of_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (named,) = re.findall(r"`(~/[^`]*)`", paragraph())
    assert Path(os.path.expanduser(named)) == data_files.user_cache()


def test_the_images_are_there_before_a_page_of_the_book_asks_for_them() -> None:
    outside = {name: text for name, text in os.environ.items() if name != "MAKEFLAGS"}
    steps = subprocess.run(
        ["make", "--dry-run", "-o", ".venv/.book", "book"],
        cwd=ROOT, env=outside, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert steps.index("system_packages.sh") < steps.index("ninlab.data_files")
    assert steps.index("ninlab.data_files") < steps.index("jupyter-book build")
