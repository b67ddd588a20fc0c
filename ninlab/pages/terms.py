"""How does a page say what one of its words means, without sending the reader away?

A ``{term}`` is a link into the glossary. The page also carries the definition of each term that
it uses, once, as a popover: pages.js shows it while the pointer or the focus is on the word, and
on the first tap. The link describes itself by it (``aria-describedby``), so a screen reader says
it too, and without a script the link still leads to the glossary.

Known limits: what a definition links to is text there; an equation in it needs a page that has
equations of its own.
"""

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.environment import BuildEnvironment

TERM_CLASS = "std-term"
TIP_CLASS = "ninlab-tip"


class defined_term(nodes.reference):
    """A link to a term, with its ``definition``: paragraphs to be rendered where they are shown."""


def tip_id(term: str) -> str:
    """The id that a page gives the definition of a term: a term's own id is ``term-...``."""
    return f"tip-{term.removeprefix('term-')}"


def _definition(env: BuildEnvironment, document: str, term: str) -> list[nodes.paragraph]:
    """The paragraphs that define a term; empty where that document has no such term."""
    for item in env.get_doctree(document).findall(nodes.definition_list_item):
        if any(term in one["ids"] for one in item.findall(nodes.term)):
            paragraphs = item.findall(nodes.paragraph)
            return [_plain(paragraph.deepcopy()) for paragraph in paragraphs]
    return []


def _plain(paragraph: nodes.paragraph) -> nodes.paragraph:
    """The paragraph without links and ids: it stands on pages where they would be wrong."""
    for node in list(paragraph.findall(nodes.Element)):
        node["ids"] = []
    for link in list(
        paragraph.findall(lambda node: isinstance(node, nodes.reference | pending_xref))
    ):
        link.parent.replace(link, link.children)
    return paragraph


def _homes(env: BuildEnvironment) -> dict[str, str]:
    """The document of each term, by the id that the term has there."""
    objects = env.get_domain("std").get_objects()
    return {anchor: document for _, _, kind, document, anchor, _ in objects if kind == "term"}


def _define_terms(app: Sphinx, document: nodes.document, docname: str) -> None:
    if app.builder.format != "html":
        return
    homes = _homes(app.env)
    for link in list(document.findall(nodes.reference)):
        if not any(TERM_CLASS in inner["classes"] for inner in link.findall(nodes.inline)):
            continue
        term = link["refid"] if "refid" in link else link["refuri"].rpartition("#")[2]
        if definition := _definition(app.env, homes[term], term):
            new = defined_term("", "", *link.children, **link.attributes)
            new["describedby"], new["definition"] = tip_id(term), definition
            link.replace_self(new)


def _add_definitions(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Put each definition that a page needs behind its text, where the search does not count it."""
    if doctree is None or not isinstance(app.builder, StandaloneHTMLBuilder):
        return
    tips = {term["describedby"]: term["definition"] for term in doctree.findall(defined_term)}
    for name, paragraphs in tips.items():
        parts = map(app.builder.render_partial, paragraphs)
        tip = f'<div popover role="tooltip" class="{TIP_CLASS}" id="{name}">'
        tip += "".join(part["fragment"] for part in parts) + "</div>"
        context["body"] += f"{tip}\n"


def _visit(self: Any, node: defined_term) -> None:
    self.visit_reference(node)
    self.body[-1] = self.body[-1].replace("<a ", f'<a aria-describedby="{node["describedby"]}" ', 1)


def _depart(self: Any, node: defined_term) -> None:
    self.depart_reference(node)


def connect(app: Sphinx) -> None:
    """Define the terms of a build."""
    app.add_node(defined_term, html=(_visit, _depart))
    app.connect("doctree-resolved", _define_terms)
    app.connect("html-page-context", _add_definitions)
