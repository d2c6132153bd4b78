"""The table of what a million images cost, which is computed from the scaling report."""

from tools.costs import PAGE, REPORT, hours_of, table

LINES = """
| workload | machine | feed, ms | most of it | images/s | hours a million | feeding |
| - | - | - | - | - | - | - |
| web, labels | 2 cores | 1.00 | 79% read | 0.50 | 555.6 |  |
| web, labels | 16 cores + H200 | 1.00 | 79% read | 1,000.00 | 0.3 | 27 |
| web, labels and overlay | 2 cores | 2.00 | 58% read | 0.25 | 1,111.1 |  |
"""


def test_hours_are_the_reports():
    assert hours_of(LINES) == {("web", "2 cores"): 555.6, ("web", "16 cores + H200"): 1e6 / 1000 / 3600}


def test_the_page_has_the_table_of_the_report():
    """Where the report is newer: `python -m tools.costs`."""
    assert "\n".join(table(REPORT.read_text(encoding="utf-8"))) in PAGE.read_text(encoding="utf-8")
