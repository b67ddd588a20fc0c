"""Python in a process of its own, for what a test cannot see from inside."""

import subprocess
import sys
import textwrap

from tests.book import ROOT


def python(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """What a Python says and how it ends that is started with those arguments.

    Its folder is the repository's, unless the options of `subprocess.run` name another.
    """
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, **({"cwd": ROOT} | options)
    )


def run(program: str, *arguments: object, **options: object) -> str:
    """What the program prints, which must end well."""
    ended = python("-c", textwrap.dedent(program), *arguments, **options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
