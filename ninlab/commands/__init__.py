"""The subcommands of ``python -m ninlab``, one module a group; `ninlab.__main__` registers them."""
