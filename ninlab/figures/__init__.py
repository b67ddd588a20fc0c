"""How does the book draw a number? One function for each kind of figure.

A figure is made from architectures, reports or records, never from typed numbers, and says
where its numbers come from: `counted` and `measured` make that line, and a figure carries it
in ``layout.meta["provenance"]``, from where the book prints it under the plot.

What was counted or predicted is hollow or dashed, what was measured is solid. A network has
one color in the whole book. Text, paper and grid have none: the site's two templates choose
them for light and dark, so no function here may type one in.

One module draws one family of figures: `bar_panels`, `layer_panels`, `diagrams`, `curves`,
`endings`, `errors`, `memory`, `traffic`, `speed`, `roofline`, `collapse`, `pictures`, `shifts`,
`dots`, `twins`; `costs` is what chapters draw alike with `bar_panels`. They share `colors`,
`words`, `themes`, `layout`, `placing`, `labels` and `provenance`, which import none of them.
`table` gives back the numbers that a figure draws; `tables_by_scale` says what runs show, in one
table a scale, and `longest_operators` what takes longest in a step.

Known limits: drawn for a column 350 to 800 pixels wide; a figure tells six lines of one color
apart.
"""

from ninlab.figures.bar_panels import Pair, Quantity, bars, coverage, predicted_and_measured
from ninlab.figures.collapse import fading_signal, lost_classes, plateaus
from ninlab.figures.colors import CATEGORY_COLORS, FAMILY_COLORS, NEUTRAL, color_of
from ninlab.figures.costs import costs
from ninlab.figures.curves import learning_rates, training_curves
from ninlab.figures.diagrams import Column, diagram
from ninlab.figures.dots import dots_by_row
from ninlab.figures.endings import endings
from ninlab.figures.errors import errors_in_turn
from ninlab.figures.layer_panels import shape_funnel, shares_by_layer
from ninlab.figures.marks import table
from ninlab.figures.memory import memory_by_batch, memory_timeline, traced_step
from ninlab.figures.operators import longest_operators
from ninlab.figures.pictures import Tile, tiles
from ninlab.figures.provenance import counted, measured, measured_steps, predicted, raced
from ninlab.figures.roofline import roofline
from ninlab.figures.shifts import Line, shares_by_step
from ninlab.figures.speed import intensities, rate_by_macs
from ninlab.figures.tables import Tables, tables_by_scale
from ninlab.figures.traffic import traffic
from ninlab.figures.twins import growing_apart, twin_curves

__all__ = [
    "CATEGORY_COLORS",
    "FAMILY_COLORS",
    "NEUTRAL",
    "Column",
    "Line",
    "Pair",
    "Quantity",
    "Tables",
    "Tile",
    "bars",
    "color_of",
    "costs",
    "counted",
    "coverage",
    "diagram",
    "dots_by_row",
    "endings",
    "errors_in_turn",
    "fading_signal",
    "growing_apart",
    "intensities",
    "learning_rates",
    "longest_operators",
    "lost_classes",
    "measured",
    "measured_steps",
    "memory_by_batch",
    "memory_timeline",
    "plateaus",
    "predicted",
    "predicted_and_measured",
    "raced",
    "rate_by_macs",
    "roofline",
    "shape_funnel",
    "shares_by_layer",
    "shares_by_step",
    "table",
    "tables_by_scale",
    "tiles",
    "traced_step",
    "traffic",
    "training_curves",
    "twin_curves",
]
