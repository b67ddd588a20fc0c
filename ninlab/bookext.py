"""How does the book draw its figures, and what may one of its pages load?

The Sphinx and myst-nb side of the book. A cell that ends in a bare Plotly figure
hands its JSON to `PlotlyMime`; the page carries that JSON and draws it with the one
local copy of plotly.js, in the reader's theme, on a phone as on a desk, on paper,
and from a folder without a network. Nothing on any page comes from another host.

A figure that says where its numbers come from, in ``layout.meta["provenance"]``, has that
line at the end of its caption, and behind it a link to the numbers themselves: a file that
lies beside the pages, one row a mark, and needs neither a network nor a script.

The assertions that prove a chapter's numbers stand in a file beside it (`ninlab.checks`); they run
with the chapter, and no page shows them.

It is loaded twice: by myst-nb through the entry point of pyproject.toml, and by
Jupyter Book through ``local_extensions`` in _config.yml.

Known limits: HTML builders draw, all others print the text alternative; a figure in the middle of
a sentence (``glue``) is not drawn.
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata, util
from logging import WARNING, getLogger
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import nbformat
import plotly.io
from docutils import nodes
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from plotly.offline import get_plotlyjs
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from ninlab import checks
from ninlab.figures import table
from ninlab.figures.themes import THEMES, template
from ninlab.pages.references import with_roles

PLOTLY_MIME = "application/vnd.plotly.v1+json"
DEFAULT_HEIGHT = 450
"""Pixels that plotly.js gives a figure without a height of its own."""

_HTML_BUILDERS = ("html", "dirhtml", "singlehtml")
_STATIC = Path(__file__).parent / "static"
_SHARED = "ninlab"
"""Folder under _static for what is too large to be listed on every page."""
_MATHJAX = "tex-chtml.js"
_MATHJAX_FONTS = "output/chtml/fonts/woff-v2"
_PROVENANCE_CLASS = "ninlab-provenance"
_DATA_CLASS = "ninlab-data"
_DOWNLOADS = "_downloads"
"""Where Sphinx looks for what its download links name."""
_IDS_OF_EVERY_BOX = {"exercise-content", "solution-content"}
_SENTENCE_END = re.compile(r"(?<=[.?!])\s")
_READER = "ninlab_checks"
"""What pyproject.toml calls `checks.read` before jupyter-cache."""
_RESULTS_DEPEND_ON = ("numpy", "pandas", "plotly", "torch", "torchvision", "fvcore")

_log = logging.getLogger(__name__)


class plotly_figure(nodes.General, nodes.Element):
    """A Plotly figure in the document tree; ``figure`` holds its JSON as a dict."""


class PlotlyMime:
    """The myst-nb plugin that takes Plotly's own JSON out of a notebook."""

    mime_priority_overrides = tuple((builder, PLOTLY_MIME, 1) for builder in _HTML_BUILDERS)

    @staticmethod
    def handle_mime(renderer: object, data: Any, inline: bool) -> list[nodes.Element] | None:
        """The node of a Plotly output, or None for what other renderers should take."""
        if inline or data.mime_type != PLOTLY_MIME:
            return None
        return [plotly_figure(figure=dict(data.content), classes=["output", "ninlab-output"])]


def _caption(node: plotly_figure) -> nodes.caption | None:
    """The caption of a numbered figure."""
    if not isinstance(node.parent, nodes.figure):
        return None
    return next(node.parent.findall(nodes.caption), None)


def text_alternative(node: plotly_figure) -> str:
    """What a screen reader calls a figure: the first sentence of its caption, else its title.

    The rest of a caption is read in its own place. Empty when there is neither.
    """
    if caption := _caption(node):
        return _SENTENCE_END.split(caption.astext(), maxsplit=1)[0]
    title = node["figure"].get("layout", {}).get("title") or ""
    return str(title.get("text", "") if isinstance(title, dict) else title)


def provenance(node: plotly_figure) -> str:
    """Where a figure says that its numbers come from: its ``layout.meta["provenance"]``."""
    meta = node["figure"].get("layout", {}).get("meta") or {}
    return str(meta.get("provenance", "")) if isinstance(meta, dict) else ""


def _end_captions_with_provenance(app: Sphinx, document: nodes.document, docname: str) -> None:
    for figure in document.findall(plotly_figure):
        if (caption := _caption(figure)) and (line := provenance(figure)):
            caption += [nodes.Text(" "), nodes.emphasis("", line, classes=[_PROVENANCE_CLASS])]


def _end_captions_with_data(app: Sphinx, document: nodes.document, docname: str) -> None:
    """Write the numbers of each captioned figure into a file, and link to it."""
    if app.builder.name not in _HTML_BUILDERS:
        return
    for figure in document.findall(plotly_figure):
        caption, marks = _caption(figure), table(figure["figure"])
        if caption is None or marks.empty:
            continue
        file = f"data/{figure.parent['ids'][0]}.csv"
        path = Path(app.outdir, _DOWNLOADS, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        marks.to_csv(path, index=False)
        link = download_reference("", "Data (csv)", filename=file, classes=[_DATA_CLASS])
        caption += [nodes.Text(" "), link]


def _drop_repeated_ids(app: Sphinx, document: nodes.document, docname: str) -> None:
    """sphinx-exercise gives the content of every box of a page the same id."""
    for section in document.findall(nodes.section):
        section["ids"] = [one for one in section["ids"] if one not in _IDS_OF_EVERY_BOX]


def drawing(figure: dict[str, Any]) -> str:
    """The JSON that a page carries for one figure, safe inside a script element.

    The template is left out: the site has one for each theme, and a copy in every
    figure would neither follow the theme switch nor be small. Numbers have seven digits, more than
    a screen can show; the file of a figure's numbers has all of them.
    """
    layout = {key: value for key, value in figure.get("layout", {}).items() if key != "template"}
    kept = {key: figure[key] for key in ("data", "frames", "config") if figure.get(key)}
    text = json.dumps(_rounded(kept | {"layout": layout}), separators=(",", ":"))
    return text.replace("<", "\\u003c")  # no tag in a label may end the script element


def _rounded(value: Any) -> Any:
    """The same JSON with seven significant digits in each number that is not whole."""
    match value:
        case float():
            return float(f"{value:.7g}")
        case list() | tuple():
            return [_rounded(one) for one in value]
        case dict():
            return {key: _rounded(one) for key, one in value.items()}
    return value


def _visit_html(self: Any, node: plotly_figure) -> None:
    label = text_alternative(node)
    if not label:
        _log.warning("a Plotly figure has neither a caption nor a title", location=node)
    height = node["figure"].get("layout", {}).get("height", DEFAULT_HEIGHT)
    self.body.append(
        self.starttag(
            node,
            "div",
            "",
            CLASS="ninlab-figure",
            role="group",
            style=f"min-height: {height}px",
            **{"aria-label": label},
        )
    )
    self.body.append(f'<script type="application/json">{drawing(node["figure"])}</script>')
    self.body.append("<noscript>This figure is drawn by JavaScript.</noscript>")


def _depart_html(self: Any, node: plotly_figure) -> None:
    self.body.append("</div>\n")
    line = provenance(node)
    if line and _caption(node) is None:
        self.body.append(f'<p class="{_PROVENANCE_CLASS}">{self.encode(line)}</p>\n')


def _visit_other(self: Any, node: plotly_figure) -> None:
    self.visit_Text(nodes.Text(text_alternative(node)))
    raise nodes.SkipNode


def _visit_citation(self: Any, node: nodes.citation) -> None:
    # docutils names a role that ARIA has since withdrawn: screen readers found an empty list.
    type(self).visit_citation(self, node)
    self.body[-1] = self.body[-1].replace('role="doc-biblioentry"', 'role="listitem"')


def _depart_citation(self: Any, node: nodes.citation) -> None:
    type(self).depart_citation(self, node)


def _package_folder(name: str) -> Path:
    """Where an installed distribution keeps its files; its name need not be an identifier."""
    spec = util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the book needs {name}; install ninlab[book]")
    return Path(spec.submodule_search_locations[0])


def results_digest(book: Path) -> str:
    """Sixteen hex digits that change with anything an executed cell may depend on.

    jupyter-cache looks at a notebook's own cells only: without this an edit of the
    module, a new record or another torch would leave old outputs in the book.
    """
    digest = hashlib.sha256(sys.version.encode())
    for name in _RESULTS_DEPEND_ON:
        digest.update(f"{name}=={metadata.version(name)}".encode())
    for folder in (Path(__file__).parent, book / "runs"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(folder).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _choose_execution_cache(app: Sphinx, config: Config) -> None:
    build = Path(app.outdir).parent
    current = build / f".jupyter_cache-{results_digest(Path(app.srcdir))}"
    for stale in build.glob(".jupyter_cache-*"):
        if stale != current:
            shutil.rmtree(stale)
    config.nb_execution_cache_path = str(current)


def _execute_side_by_side(app: Sphinx, env: BuildEnvironment, documents: list[str]) -> None:
    """Fill the cache with one notebook on each core; myst-nb alone runs one after the other.

    A notebook that fails is not in the cache: myst-nb runs it again and fails the build.
    """
    if app.config.nb_execution_mode != "cache":
        return
    cache = get_cache(app.config.nb_execution_cache_path)
    notebooks = [path for path in map(env.doc2path, documents) if path.endswith(".ipynb")]
    for path in notebooks:
        cache.add_nb_to_project(path, read_data={"name": _READER, "type": "plugin"})
    _log.info("executing notebooks, one on each core")
    quiet = getLogger(f"{__name__}.executor")
    quiet.setLevel(WARNING)  # else it lets every process of the build say that it shuts down
    executor = load_executor("local-parallel", cache, quiet)
    executor.run_and_cache(timeout=app.config.nb_execution_timeout)


def _complete_notebook(app: Sphinx, document: str, source: list[str]) -> None:
    """Let the assertions of a page run with it, and read its links to works and figures as roles.

    See `ninlab.checks` and `ninlab.pages.references`.
    """
    path = Path(app.env.doc2path(document))
    if path.suffix == ".ipynb":
        notebook = checks.read(path)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = with_roles(cell.source)
        source[0] = nbformat.writes(notebook)


def _use_local_mathjax(app: Sphinx, config: Config) -> None:
    config.mathjax_path = f"{_SHARED}/mathjax/{_MATHJAX}"


def _follow_repository(app: Sphinx, config: Config) -> None:
    """Buttons and the canonical address follow ``repository: url``; without it there are none."""
    options = config.html_theme_options
    address = urlsplit(options.get("repository_url") or "")
    if not address.netloc:
        for option in ("repository_url", "launch_buttons"):
            options.pop(option, None)
        return
    options.update(use_repository_button=True, use_issues_button=True)
    # The theme puts it into addresses as it stands, where a # or a % would be something else.
    options["repository_branch"] = quote(options.get("repository_branch") or "")
    if not config.html_baseurl and address.netloc == "github.com":
        owner, name = address.path.strip("/").split("/")
        config.html_baseurl = f"https://{owner.lower()}.github.io/{name}/"


def _add_static_files(app: Sphinx) -> None:
    # Jupyter Book loads every script of a top-level _static folder on every page.
    app.config.html_static_path.append(str(_STATIC))
    app.add_css_file("ninlab.css")
    app.add_js_file("pages.js", loading_method="defer")


def site_templates() -> dict[str, Any]:
    """The Plotly template of each theme, as JSON values; backgrounds are the page's."""
    templates: dict[str, Any] = {theme: template(theme) for theme in THEMES}
    for made in templates.values():
        made["layout"] |= {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
        }
    return templates


def _write_shared_files(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.name not in _HTML_BUILDERS:
        return
    shared = Path(app.outdir, "_static", _SHARED)
    shared.mkdir(parents=True, exist_ok=True)
    (shared / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    templates = plotly.io.json.to_json_plotly(site_templates())
    (shared / "templates.js").write_text(f"window.ninlabTemplates={templates};", encoding="utf-8")
    mathjax = _package_folder("sphinx-mathjax-offline") / "static" / "mathjax"
    target = shared / "mathjax"
    shutil.copytree(mathjax / _MATHJAX_FONTS, target / _MATHJAX_FONTS, dirs_exist_ok=True)
    shutil.copy2(mathjax / _MATHJAX, target)


def _copy_records(app: Sphinx, exception: Exception | None) -> None:
    """Put the measured runs beside the pages, so that a page can link to each of them."""
    if exception or app.builder.name not in _HTML_BUILDERS:
        return
    for record in Path(app.srcdir, "runs").glob("*/*.json"):
        copy = Path(app.outdir, "runs", record.parent.name, record.name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record, copy)


def _scripts_of_the_book(scripts: list[Any]) -> Iterator[Any]:
    """The page's scripts without sphinx-thebe's, which Jupyter Book adds (twice) even when off."""
    for script in scripts:
        body = getattr(script, "attributes", {}).get("body") or ""
        if "THEBE_JS_URL" not in body and "sphinx-thebe" not in str(
            getattr(script, "filename", "")
        ):
            yield script


def _compose_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    if doctree is not None and next(doctree.findall(plotly_figure), None) is not None:
        app.add_js_file("figures.js", loading_method="defer")
        plotly_js = context["pathto"](f"_static/{_SHARED}/plotly.min.js", resource=True)
        preload = f'<link rel="preload" as="script" href="{plotly_js}" />'
        context["metatags"] = context.get("metatags", "") + preload
    context["script_files"][:] = _scripts_of_the_book(context.get("script_files", []))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect everything above, and `pages`, to a Sphinx build."""
    app.setup_extension("ninlab.pages")
    app.add_node(
        plotly_figure,
        html=(_visit_html, _depart_html),
        latex=(_visit_other, None),
        text=(_visit_other, None),
    )
    app.add_node(nodes.citation, override=True, html=(_visit_citation, _depart_citation))
    app.connect("config-inited", _use_local_mathjax)
    app.connect("config-inited", _choose_execution_cache)
    app.connect("config-inited", _follow_repository)
    app.connect("env-before-read-docs", _execute_side_by_side)
    app.connect("source-read", _complete_notebook)
    app.connect("builder-inited", _add_static_files)
    app.connect("doctree-resolved", _end_captions_with_provenance)
    app.connect("doctree-resolved", _end_captions_with_data)
    app.connect("doctree-resolved", _drop_repeated_ids)
    app.connect("html-page-context", _compose_page)
    app.connect("build-finished", _write_shared_files)
    app.connect("build-finished", _copy_records)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
