"""What a run has done, as one HTML file that can be sent around: `barlow report RUN`.

`record.py` reads a run's folder. A file for each part turns what it says into plain data, and that into HTML and SVG.
`page.py` puts the parts together, and `writing.py` does all of it for a command.
"""

from barlow.report.writing import write_report

__all__ = ["write_report"]
