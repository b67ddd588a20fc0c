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
from urllib.parse import quote

import nbformat
import yaml

from ninlab import exits
from ninlab.errors import one_sentence, quoted
from tools.notebooks import read_notebook
from tools.whole_files import replace_files

ROOT = Path(__file__).resolve().parents[1]
HOST = "https://github.com/"
SETUP_TAG = "remove-cell"
SETUP_ID = "colab-setup"
_OWNER_AND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/(?!\.{1,2}\Z)[A-Za-z0-9._-]+")

# What no branch may hold, by the manual of git-check-ref-format; the names are ASCII's.
_NO_BRANCH = re.compile(
    r"""
    \A(?: HEAD | @ )?\Z          # nothing, and what stands for the commit that is checked out
    | \A[-/] | [/.]\Z           # an option; a folder; a name that ends as a sentence does
    | (?: \A | / ) \.           # a part that is hidden, and // or .. with it
    | \.lock (?: / | \Z )       # git's own locks
    | // | \.\. | @\{           # what git reads as a range or a place in history
    | [\x00-\x20\x7f~^:?*[\\]  # controls, spaces, and what git, shells or Windows read
    """,
    re.VERBOSE,
)

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
    """(address, branch) as _config.yml has them; the address is empty while it is not set.

    Exits with a sentence where the file has no such two texts.
    """
    path = book / "_config.yml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))["repository"]
        url, branch = settings["url"], settings["branch"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        sys.exit(f"{path} has no url and branch under 'repository:' ({one_sentence(error, 80)})")
    for value in (url, branch):
        if not isinstance(value, str):
            sys.exit(
                f"{path} has {value!r} under 'repository:', which is no text; put it in quotes"
            )
    return url, branch


def is_branch(name: str) -> bool:
    """Whether git takes that name for a branch. Source: the manual of git-check-ref-format."""
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        return False
    return not _NO_BRANCH.search(name)


def setup_cell(url: str, branch: str) -> str:
    """The first code cell of a chapter: installs ninlab on Colab and Kaggle where it is missing.

    It installs a wheel that was uploaded, else from the address, and with neither raises an error
    that says what to do. Elsewhere it does nothing.
    """
    # An older pip takes an escape for part of the name: what needs none gets none.
    address = f"git+{url}@{quote(branch, safe='/+=,')}" if url else ""
    return _SETUP.replace("{address}", address).rstrip()


def is_setup_cell(cell: Any) -> bool:
    """Whether a notebook cell is the one that this tool writes, for any address."""
    return bool(cell.cell_type == "code" and cell.id == SETUP_ID)


def config_with(book: Path, url: str, branch: str) -> str:
    """The text of _config.yml with that address; all other lines, comments too, are as they were.

    Exits with a sentence where the lines of the address are not found.
    """
    path = book / "_config.yml"
    text = path.read_bytes().decode()
    for key, value in (("url", url), ("branch", branch)):
        line = f"  {key}: {_quoted(value)}"
        text, found = re.subn(rf"(?m)^  {key}: [^\r\n]*", lambda _, line=line: line, text)  # type: ignore[misc]
        if found != 1:
            sys.exit(f"{path.name} must have one line '  {key}: ', under 'repository:'")
    return text


def _quoted(value: str) -> str:
    """The value as YAML writes a text, so that 1.10, null or c#d are read as such."""
    dumped: str = yaml.dump(value, default_style='"', allow_unicode=True, width=float("inf"))
    return dumped.rstrip("\n")


def with_setup_cell(path: Path, url: str, branch: str) -> str | None:
    """The text of a notebook with the right first code cell; None where it has that already.

    Exits with a sentence where the file is no notebook.
    """
    notebook = read_notebook(path)
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
    after = nbformat.writes(notebook)
    return None if after == before else f"{after}\n"


def main(arguments: list[str] | None = None, book: Path = ROOT) -> None:
    """Read the command line, write _config.yml and the chapters of book, say what changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("repository", nargs="?", metavar="OWNER/NAME")
    parser.add_argument("--branch", help="branch or tag that readers get; default: unchanged")
    options = parser.parse_args(arguments)
    url, branch = repository(book)
    wanted = url if options.repository is None else options.repository
    if wanted or options.repository is not None:
        name = wanted.removeprefix(HOST).removesuffix("/").removesuffix(".git")
        if not _OWNER_AND_NAME.fullmatch(name):
            sys.exit(f"{quoted(wanted)} is no repository; write OWNER/NAME, as on GitHub")
        url = HOST + name
    if options.branch is not None:
        branch = "--" if options.branch == [] else options.branch  # argparse before Python 3.13
    if not is_branch(branch):
        sys.exit(f"{quoted(branch)} is no name of a branch; git has its rules for such names")
    texts = {book / "_config.yml": config_with(book, url, branch)}
    for path in sorted([*book.glob("*.ipynb"), *(book / "chapters").glob("*.ipynb")]):
        text = with_setup_cell(path, url, branch)
        if text is not None:
            texts[path] = text
    replace_files(texts)
    changed = [path.name for path in texts if path.suffix == ".ipynb"]
    print(f"address: {url or 'not set'} (branch {branch})")
    print(f"set-up cells written: {', '.join(changed) or 'all were right'}")


if __name__ == "__main__":
    exits.run(main)
