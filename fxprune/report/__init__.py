"""What people see. Imported with fxprune, since it provides the displays of couplings, plans, records and proofs."""

from fxprune.report.compression import compression_table
from fxprune.report.html import to_html
from fxprune.report.notebook import coupling_html, plan_html, record_html, verification_html
from fxprune.report.search_plots import search_plot, sensitivity_plot
from fxprune.report.table import coupling_table

__all__ = ["compression_table", "coupling_html", "coupling_table", "plan_html", "record_html", "search_plot",
           "sensitivity_plot", "to_html", "verification_html"]
