"""What do networks cost on paper? Three panels that chapters share."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from ninlab.architectures import architecture
from ninlab.figures.bar_panels import Quantity, bars
from ninlab.figures.provenance import counted
from ninlab.formulas import macs, parameters, saved_bytes
from ninlab.reports import NetworkCost
from ninlab.units import format_bytes


def costs(networks: Mapping[str, str], reports: Mapping[str, NetworkCost]) -> go.Figure:
    """Parameters, MACs and kept bytes of one image, one panel each, in the networks' colors.

    networks gives the name of the network that a label stands for, reports by label what torch's
    operators come to: the second opinion on what is drawn. Raises NinlabError where the two
    differ, UnknownNetworkError for a name.
    """
    by_formula = {label: architecture(name) for label, name in networks.items()}
    drawn = {
        "parameters": {label: parameters(network) for label, network in by_formula.items()},
        "macs": {label: macs(network) for label, network in by_formula.items()},
        "saved_bytes": {label: saved_bytes(network) for label, network in by_formula.items()},
    }
    by_torch = {
        what: {label: getattr(reports[label], what) for label in networks} for what in drawn
    }
    return bars(
        Quantity("Parameters", drawn["parameters"], "parameters"),
        Quantity("MACs of one image", drawn["macs"], "MACs"),
        Quantity("Kept for backward, one image", drawn["saved_bytes"], "bytes", format_bytes),
        like=networks,
        provenance=counted({"formulas": drawn, "the operators that torch runs": by_torch}),
    )
