"""Figures of a report as plain values, as Plotly reads them: {"data": [...], "layout": {...}}.

A colour is the name of a variable of the page, such as "--accent". The page replaces it when it
draws a figure, and again when its theme changes. Text from data is escaped, because Plotly reads
text as markup.
"""

from vaestro.report.figures.bounds import Interval, bounds, bounds_of_folder, gap_sentences
from vaestro.report.figures.curves import curves
from vaestro.report.figures.latent_map import latent_map
from vaestro.report.figures.style import Figure, Plain
from vaestro.report.figures.units import ROLES, SHOWN_UNITS, units

__all__ = [
    "ROLES",
    "SHOWN_UNITS",
    "Figure",
    "Interval",
    "Plain",
    "bounds",
    "bounds_of_folder",
    "curves",
    "gap_sentences",
    "latent_map",
    "units",
]
