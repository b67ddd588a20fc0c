"""What does a GPU machine without a network need to record the book's runs?

Packs it into one folder: the commit as a git bundle, so that records can name their code; the
records that are not committed yet; the Python packages that an image with torch lacks; the
images; git itself, where apt can fetch it; and on_gpu.sh, which runs there::

    make kit                                        # this tool, into dist/gpu
    bash dist/gpu/on_gpu.sh RESULTS 570 check memory record
    cat RESULTS/records.tar.gz.* | tar xz           # in the repository, then commit

Known limit: the packages are copied from this environment, which works for pure Python only.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

from ninlab import data

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fvcore", "iopath", "termcolor", "yacs")
"""fvcore, and what it needs beyond the packages that come with torch, torchvision and pandas."""
GIT = ("git", "libpcre2-8-0")
"""Debian's packages of git and of the one library that a bare image may lack."""


def pack(kit: Path) -> None:
    """Fill the folder, or bring it up to date with the commit and the records."""
    kit.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / "tools" / "on_gpu.sh", kit)
    git("bundle", "create", "--quiet", str(kit.resolve() / "ninlab.bundle"), "HEAD")
    with tarfile.open(kit / "records.tar.gz", "w:gz") as archive:
        for path in git("ls-files", "-z", "--others", "--exclude-standard", "runs").split("\0"):
            if path:
                archive.add(ROOT / path, path)
    for package in PACKAGES:
        copy_package(package, kit / "site")
    copy_images(kit / "images")
    fetch_git(kit / "git")


def git(*arguments: str) -> str:
    """What git answers in the repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def copy_package(name: str, site: Path) -> None:
    """Copy an installed package's modules and metadata. Raises SystemExit for a compiled one."""
    for file in metadata.files(name) or ():
        if file.suffix in (".so", ".pyd"):
            raise SystemExit(f"{name} is not pure Python; install it on the GPU machine")
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def copy_images(folder: Path) -> None:
    """Copy the four files of Fashion-MNIST, compressed or not."""
    folder.mkdir(exist_ok=True)
    source = data.find() or data.download()
    for name in data.FILES:
        for path in source.glob(f"{name}*"):
            shutil.copyfile(path, folder / path.name)


def fetch_git(folder: Path) -> None:
    """Download git as Debian packages; say so where that is not possible."""
    folder.mkdir(exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "-qq", *GIT], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError):
        print("git could not be packed; the GPU machine has to have it", file=sys.stderr)


def main() -> None:
    """Pack the kit; see the module's documentation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "dist" / "gpu")
    kit = parser.parse_args().folder
    pack(kit)
    size = sum(path.stat().st_size for path in kit.rglob("*") if path.is_file())
    print(f"{kit}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
