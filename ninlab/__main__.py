"""The command line: ``python -m ninlab COMMAND``.

What a reader did wrong is one sentence on stderr and exit code 2, never a traceback; an
error with an exit code of its own says so where it is defined. Only the module of the
command that was asked for is imported, so that listing the networks does not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from ninlab import exits
from ninlab.errors import NinlabError, UnknownNameError

if TYPE_CHECKING:
    from typer.core import TyperGroup

COMMANDS = {
    "resources": "ninlab.commands.resources",
    "networks": "ninlab.commands.networks",
    "train": "ninlab.commands.record",
    "record": "ninlab.commands.record",
    "runs": "ninlab.commands.runs",
    "measure": "ninlab.commands.measure",
    "profile": "ninlab.commands.profile",
    "collect": "ninlab.commands.collect",
    "selfcheck": "ninlab.commands.selfcheck",
}
"""Module of each command; the function there is called like the command."""


@cache
def command_line(command: str | None) -> TyperGroup:
    """The command line with that one command, or with all of them. It is made once."""
    import typer

    app = typer.Typer(
        name="ninlab",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="What a convolutional network costs, and whether its design choices pay.",
    )

    @app.callback()
    def group() -> None:
        """Keep the command's name required when only one command is loaded."""

    group.__doc__ = app.info.help
    for name, module in COMMANDS.items():
        if command in (name, None):
            app.command(name)(getattr(importlib.import_module(module), name))
    return typer.main.get_group(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command line: 0 done, 2 bad input (one sentence on stderr)."""
    given = sys.argv[1:] if arguments is None else [*arguments]
    return exits.exit_code_of(lambda: _carried_out(given))


def _carried_out(arguments: list[str]) -> int:
    """What the command returns, 0 for None. Raises NinlabError for what cannot be asked."""
    import typer

    from ninlab.commands import shared

    shared.begin()
    first = arguments[0] if arguments else ""
    is_option = not first or first.startswith("-")  # of the group, as --help
    if first not in COMMANDS and not is_option:
        raise UnknownNameError("command", first, COMMANDS)
    try:
        result = command_line(None if is_option else first).main(
            args=arguments, prog_name="python -m ninlab", standalone_mode=False
        )
    except typer.Abort:
        return exits.INTERRUPTED
    except Exception as error:
        # Usage errors come from the click that typer brings, under a name that has moved
        # between its releases; what they share is the way they word themselves.
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        message = format_message()
        if not message.lstrip().startswith("Usage:"):
            raise NinlabError(message) from error
        print(message, file=sys.stderr)  # what can be asked, where nothing was
        return NinlabError.exit_code
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    exits.run(lambda: _carried_out(sys.argv[1:]))
