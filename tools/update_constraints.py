"""Which exact versions does CI run? Writes them to constraints.txt.

``python tools/update_constraints.py`` resolves the package with every extra and
writes the newest versions that fit together; nothing is installed. Versions that
CI has passed with are then committed, and `make` installs under them.

Known limit: one file for Python 3.11 to 3.13, resolved on the Python that runs this.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from ninlab import exits
from tools.whole_files import replace_files

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "dev,lab,ray"
HEADER = """\
# The exact versions that CI runs, for every extra; `make` installs under them.
# Written by tools/update_constraints.py: change pyproject.toml, not this file.
"""


def resolve() -> dict[str, str]:
    """Version by distribution name of everything that a full installation needs.

    Raises CalledProcessError where pip finds no versions that fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        package = ["--editable", f"{ROOT}[{EXTRAS}]"]
        subprocess.run([*pip, "--report", str(report), *package], check=True)
        installed = json.loads(report.read_text())["install"]
    versions = {item["metadata"]["name"]: item["metadata"]["version"] for item in installed}
    del versions["ninlab"]
    return versions


def main() -> None:
    """Write constraints.txt, sorted, one distribution a line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        lines = (f"{name}=={version}\n" for name, version in resolve().items())
    except subprocess.CalledProcessError:  # pip has said why
        sys.exit("pip found no versions that fit together; constraints.txt is as it was")
    replace_files({ROOT / "constraints.txt": HEADER + "".join(sorted(lines, key=str.lower))})


if __name__ == "__main__":
    exits.run(main)
