"""Where does the code of a figure or of a table stand, that a reader need not see first?

A cell with the tag ``hide-input`` shows what it put out. Its code is behind a small "Code": beside
the link to the data at the end of a figure's caption, else below the output. A fold of the page's
own (``details``) does that, so it needs no script, and opens with the keyboard.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

FOLD_CLASS = "ninlab-code"
SUMMARY = "Code"


class code_fold(nodes.General, nodes.Element):
    """Code that its summary opens."""


class PutCodeBehind(SphinxPostTransform):
    """Moves the code of each cell that hides it behind what the cell put out.

    It takes such cells from myst-nb's own transform (priority 199), whose bars stand above the
    output, by being earlier. A cell that put nothing out keeps its bar, for there is nothing else.
    """

    default_priority = 198
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Move the code of each cell of the document."""
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") == "cell_code" and cell.get("hide_mode") == "input":
                put_behind(cell)


def put_behind(cell: nodes.container) -> None:
    """Move the code of one cell behind its output, where it has both."""
    parts = {
        part.get("nb_element"): part for part in cell.children if isinstance(part, nodes.Element)
    }
    source, output = parts.get("cell_code_source"), parts.get("cell_code_output")
    if source is None or output is None:
        return
    del cell["hide_mode"]
    cell.remove(source)
    fold = code_fold("", source, classes=[FOLD_CLASS])
    caption = next(output.findall(nodes.caption), None)
    if caption is not None and isinstance(caption.parent, nodes.figure):
        caption.parent.append(nodes.legend("", fold))
    else:
        cell.append(fold)


def _visit(self: Any, node: code_fold) -> None:
    self.body.append(self.starttag(node, "details"))
    self.body.append(f"<summary>{SUMMARY}</summary>\n")


def _depart(self: Any, node: code_fold) -> None:
    self.body.append("</details>\n")


def connect(app: Sphinx) -> None:
    """Fold the code of a build."""
    app.add_node(code_fold, html=(_visit, _depart))
    app.add_post_transform(PutCodeBehind)
