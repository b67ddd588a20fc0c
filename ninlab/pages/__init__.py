"""What does a page make of its tables, of the code behind its figures, and of its terms?

A Sphinx extension, loaded by `bookext`: one module for each of the three. All of it works from a
folder, and without scripts; one shows the definition of a term where a script may run.
"""

from sphinx.application import Sphinx

from ninlab.pages import folds, tables, terms


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the three modules to a Sphinx build."""
    for module in (folds, tables, terms):
        module.connect(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
