"""The report: tables, figures and one page, a pure function of the records.

The same results give the same bytes, on any day: no dates of now, no random identifiers, and
nothing depends on the order in which runs ended.
"""

from __future__ import annotations

from panelbench.report.build import build as build
from panelbench.report.build import terminal_table as terminal_table
