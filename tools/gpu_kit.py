"""What does a GPU machine without a network need to record the book's runs?

Packs it into one folder: the commit as a repository of one commit, so that records can name their
code; the records and probes that are not committed yet; the Python packages that an image with
torch lacks; the images; git itself; and on_gpu.sh, which runs there::

    make kit                                        # this tool, into dist/gpu
    bash dist/gpu/on_gpu.sh RESULTS 570 smoke record
    python -m ninlab collect RESULTS                # in the repository, then commit

Kept weights and the records of CPUs are not packed, for they are most of the repository and nothing
that runs there reads them: it is a partial clone with a sparse checkout, which git calls clean.
Images are packed by bzip2, which is a tenth smaller than gzip.

Known limits: packages and git are copied from here. A compiled package is also fetched for the
Pythons of `PYTHONS`, on Linux and x86-64; git needs a C library there that is not older than here.
"""

from __future__ import annotations

import argparse
import bz2
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from ninlab import data_files, exits, handover
from ninlab.errors import NinlabError

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    *("fvcore", "iopath", "portalocker", "PyYAML", "tabulate", "termcolor", "tqdm", "yacs"),
    *("pydantic", "annotated-types", "typing-inspection", "typing_extensions"),
)
"""fvcore and pydantic, and what they need beyond the packages that come with torch, torchvision and
pandas."""
WITH_A_COMPILED_PART = ("PyYAML",)
"""Packages that work without their compiled part, only slower."""
COMPILED = ("pydantic_core",)
"""Packages that are nothing without it."""
PYTHONS = ("3.12",)
"""Of GPU machines, beside the Python that packs."""
SITE = "site.tar.gz"
NAMES = {
    *("on_gpu.sh", "commit", "repository.tar", handover.ARCHIVE, SITE, "images", "git.tar.gz"),
    "site",  # of older kits
}
"""What lies in a kit. A folder that holds anything else is none, and stays."""
PACKED_FILES = "/*\n!*.safetensors\n!/runs/*/*-cpu.json\n"
"""Which files of the commit are packed, as git's sparse checkouts write it."""


def pack(kit: Path) -> None:
    """Fill the folder anew, or leave it as it is where that fails.

    Raises SystemExit when it is no folder or holds other things than a kit.
    """
    kit = kit.resolve()
    if kit.exists() and not kit.is_dir():
        raise SystemExit(f"{kit} is no folder; name a new one or that of an older kit")
    if kit.exists() and not {path.name for path in kit.iterdir()} <= NAMES:
        raise SystemExit(f"{kit} holds other files; name a new folder or that of an older kit")
    kit.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{kit.name}-", dir=kit.parent) as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        shutil.copy2(ROOT / "tools" / "on_gpu.sh", new)
        pack_commit(new)
        pack_new_records(new / handover.ARCHIVE)
        pack_packages(new / SITE, Path(scratch, "site"))
        copy_images(new / "images")
        pack_git(new / "git.tar.gz")
        if kit.exists():
            kit.rename(Path(scratch, "old"))
        new.rename(kit)


def run(*command: str, feed: str = "") -> str:
    """What the command prints. Raises CalledProcessError when it fails."""
    ended = subprocess.run(command, check=True, input=feed, stdout=subprocess.PIPE, text=True)
    return ended.stdout


def pack_commit(kit: Path) -> None:
    """Write the commit's id, and a repository that holds this one commit, as .git in a tar."""
    (kit / "commit").write_text(run("git", "-C", str(ROOT), "rev-parse", "HEAD"))
    clone = ("git", "clone", "--quiet", "--depth=1", "--template=")
    with tempfile.TemporaryDirectory() as scratch:
        whole, light = Path(scratch, "whole"), Path(scratch, "light")
        run(*clone, "--bare", ROOT.as_uri(), str(whole))
        hash_object = ("git", "-C", str(whole), "hash-object", "-w", "--stdin")
        pattern = run(*hash_object, feed=PACKED_FILES).strip()
        run(
            *clone,
            *("--no-checkout", f"--filter=sparse:oid={pattern}"),
            "--upload-pack=git -c uploadpack.allowFilter=true upload-pack",
            *(whole.as_uri(), str(light)),
        )
        sparse = ("git", "-C", str(light), "sparse-checkout", "set", "--no-cone")
        run(*sparse, *PACKED_FILES.split())
        with tarfile.open(kit / "repository.tar", "w") as archive:
            archive.add(light / ".git", ".git")


def pack_new_records(target: Path) -> None:
    """Pack what is not committed yet of records and probes, without weights, as hand_over does."""
    with tarfile.open(target, "w:gz") as archive:
        for name in handover.new_files(ROOT / "runs"):
            if not name.endswith(handover.WEIGHTS):
                archive.add(ROOT / "runs" / name, f"{handover.TOP}/{name}")


def pack_packages(target: Path, site: Path) -> None:
    """Pack the Python packages, which are put together in the folder site."""
    for package in PACKAGES:
        copy_package(package, site)
    for package in COMPILED:
        copy_package(package, site, compiled=True)
        fetch_compiled_parts(package, site)
    with tarfile.open(target, "w:gz") as archive:
        archive.add(site, ".")


def copy_package(name: str, site: Path, *, compiled: bool = False) -> None:
    """Copy an installed package's modules and metadata, and its compiled part if that is wanted.

    Raises SystemExit for a package that needs the compiled part, where it is not wanted.
    """
    for file in metadata.files(name) or ():
        if file.suffix in (".so", ".pyd") and not compiled:
            if name in WITH_A_COMPILED_PART:
                continue
            raise SystemExit(f"{name} is not pure Python; install it on the GPU machine")
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def fetch_compiled_parts(name: str, site: Path) -> None:
    """Lay the compiled parts of an installed package for `PYTHONS` beside its modules.

    Each Python finds its own by the name. Says so on stderr where one cannot be had: the kit is
    then of no use to that Python.
    """
    wanted = f"{name}=={metadata.version(name)}"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", wanted]
    for python in PYTHONS:
        with tempfile.TemporaryDirectory() as scratch:
            target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
            platforms = ["--platform=manylinux2014_x86_64", f"--dest={scratch}"]
            ended = subprocess.run([*download, *target, *platforms], capture_output=True)
            for wheel in Path(scratch).glob("*.whl") if ended.returncode == 0 else ():
                with zipfile.ZipFile(wheel) as archive:
                    parts = [part for part in archive.namelist() if part.endswith(".so")]
                    archive.extractall(site, parts)
        tag = f"cpython-{python.replace('.', '')}-x86_64"
        if not any(tag in part.name for part in (site / name).iterdir()):
            print(f"pip finds no {wanted} for Python {python}, which cannot use this kit",
                  file=sys.stderr)  # fmt: skip


def copy_images(folder: Path) -> None:
    """Pack the four files of Fashion-MNIST, each by itself, so that `data_files` reads them."""
    folder.mkdir()
    source, _ = data_files.load()
    for name in data_files.FILES:
        packed = bz2.compress(data_files.read(source, name))
        (folder / f"{name}.bz2").write_bytes(packed)


def pack_git(target: Path) -> None:
    """Pack git and the libraries that a bare image may lack; say so where that is not possible.

    One program is enough: it has built in all that recording asks of it.
    """
    program = shutil.which("git")
    assert program is not None  # it has just packed the commit
    try:
        libraries = re.findall(r"=> (\S*/lib(?:pcre|z)\S*)", run("ldd", program))
    except (OSError, subprocess.CalledProcessError):
        print("git could not be packed; the GPU machine has to have it", file=sys.stderr)
        return
    with tarfile.open(target, "w:gz", dereference=True) as archive:
        for path in map(Path, (program, *libraries)):
            archive.add(path, path.name)


def main() -> None:
    """Pack the kit; see the module's documentation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "dist" / "gpu")
    kit = parser.parse_args().folder
    try:
        if run("git", "-C", str(ROOT), "status", "--porcelain", "--", ".", ":(exclude)runs"):
            print("the working tree differs from its commit, which is packed", file=sys.stderr)
        pack(kit)
    except subprocess.CalledProcessError as error:  # git has said why
        sys.exit(f"{shlex.join(map(str, error.cmd))} failed; no kit was packed")
    except (NinlabError, OSError) as error:
        sys.exit(f"{error}; no kit was packed")
    size = sum(path.stat().st_size for path in kit.rglob("*") if path.is_file())
    print(f"{kit}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    exits.run(main)
