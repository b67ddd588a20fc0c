"""Where does the book live? Writes the repository's address where readers need it.

    python tools/set_repository.py OWNER/NAME [--branch BRANCH]
    python tools/set_repository.py

The address is kept in _config.yml alone (``repository: url``). From there come the
Colab, repository and issue buttons and the canonical address of the pages (by
ninlab.bookext) and the first code cell of every notebook, which installs ninlab on
Colab and Kaggle and does nothing elsewhere (by this tool). Without an argument the
cells are written anew from the address that stands there; run it so after adding a
chapter. While the address is empty no page has a button, and the cell asks for the
wheel of ninlab.

Known limit: addresses on github.com only, since Colab opens no others.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
HOST = "https://github.com/"
SETUP_TAG = "remove-cell"
SETUP_ID = "colab-setup"
_OWNER_AND_NAME = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+")

# A wheel that a reader uploads goes before the address: it is what they want to try. Only what is
# missing is installed, for the package sets lower bounds that both hosts satisfy (.ci/hosts).
_SETUP = """\
# On Colab and Kaggle this cell installs ninlab. Elsewhere it does nothing.
import os
from importlib.util import find_spec
from pathlib import Path

# The repository, as git+https://github.com/OWNER/NAME:
ADDRESS = "{address}"
HOSTS = {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}
if HOSTS & set(os.environ) and find_spec("ninlab") is None:
    uploads = Path("/kaggle/input").rglob("ninlab-*.whl")
    wheels = [*Path().glob("ninlab-*.whl"), *uploads]
    source = max(map(str, wheels), default=ADDRESS)
    if not source:
        raise FileNotFoundError(
            "Upload the wheel of ninlab (`make wheel` builds it) and run "
            "this cell again, or write the address into ADDRESS above."
        )
    %pip install --quiet "{source}"
"""


def repository(book: Path = ROOT) -> tuple[str, str]:
    """(address, branch) as _config.yml has them; the address is empty while it is not set."""
    settings = yaml.safe_load((book / "_config.yml").read_text())["repository"]
    return settings["url"], settings["branch"]


def setup_cell(url: str, branch: str) -> str:
    """The first code cell of a chapter: installs ninlab on Colab and Kaggle where it is missing.

    It installs a wheel that was uploaded, else from the address, and with neither raises an error
    that says what to do. Elsewhere it does nothing.
    """
    address = f"git+{url}@{branch}" if url else ""
    return _SETUP.replace("{address}", address).rstrip()


def is_setup_cell(cell: Any) -> bool:
    """Whether a notebook cell is the one that this tool writes, for any address."""
    return bool(cell.cell_type == "code" and cell.id == SETUP_ID)


def write_config(book: Path, url: str, branch: str) -> None:
    """Put the address into _config.yml; all other lines, comments too, stay as they are."""
    path = book / "_config.yml"
    text = path.read_text()
    for key, value in (("url", f'"{url}"'), ("branch", branch)):
        text, found = re.subn(rf"(?m)^  {key}: .*$", f"  {key}: {value}", text)
        if found != 1:
            sys.exit(f"{path.name} must have one line '  {key}: ', under 'repository:'")
    path.write_text(text)


def write_setup_cell(path: Path, url: str, branch: str) -> bool:
    """Give one notebook the right first code cell; returns whether that changed the file."""
    notebook = nbformat.read(path, as_version=4)
    before = nbformat.writes(notebook)
    code = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    first = code[0] if code else len(notebook.cells)
    if not code or not is_setup_cell(notebook.cells[first]):
        notebook.cells.insert(first, nbformat.v4.new_code_cell(id=SETUP_ID))
    cell = notebook.cells[first]
    cell.source = setup_cell(url, branch)
    cell.metadata = nbformat.from_dict(
        {"jupyter": {"source_hidden": True}, "tags": [SETUP_TAG]}  # nothing to read in JupyterLab
    )
    if nbformat.writes(notebook) == before:
        return False
    nbformat.write(notebook, path)
    return True


def main(arguments: list[str] | None = None, book: Path = ROOT) -> None:
    """Read the command line, write _config.yml and the chapters of book, say what changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("repository", nargs="?", metavar="OWNER/NAME")
    parser.add_argument("--branch", help="branch or tag that readers get; default: unchanged")
    options = parser.parse_args(arguments)
    url, branch = repository(book)
    if options.repository is not None:
        name = options.repository.removeprefix(HOST).removesuffix("/").removesuffix(".git")
        if not _OWNER_AND_NAME.fullmatch(name):
            sys.exit(f"{options.repository!r} is no repository; write OWNER/NAME, as on GitHub")
        url = HOST + name
    branch = options.branch or branch
    write_config(book, url, branch)
    changed = [
        path.name
        for path in sorted([*book.glob("*.ipynb"), *(book / "chapters").glob("*.ipynb")])
        if write_setup_cell(path, url, branch)
    ]
    print(f"address: {url or 'not set'} (branch {branch})")
    print(f"set-up cells written: {', '.join(changed) or 'all were right'}")


if __name__ == "__main__":
    main()
