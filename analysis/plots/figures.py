"""Every figure by name, for the command line and for reports."""

from collections.abc import Callable
from functools import partial

from matplotlib.figure import Figure

from analysis.plots.pareto import COSTS, accuracy_against
from analysis.plots.part import Part
from analysis.plots.retention import accuracy_by_category, accuracy_over_retention, evidence_over_retention
from analysis.plots.stages import stage_bars

FIGURES: dict[str, Callable[[Part], Figure]] = {
    "retention": accuracy_over_retention,
    "category": accuracy_by_category,
    "evidence": evidence_over_retention,
    "stages": stage_bars,
    **{name: partial(accuracy_against, cost=name) for name in COSTS},
}
"""Figures of one backbone on one task; each raises ResultsError where the results have nothing for it."""
