"""Writes the table of docs/captions.md, of losses between images and captions, from results/captions.jsonl (`--check`
only compares).

python experiments/captions_page.py
"""

import sys

from captions import RESULTS, table
from generated import ROOT, put_between, write_or_check

BEGIN, END = "<!-- captions: written by experiments/captions_page.py -->", "<!-- end of captions -->"


def main() -> int:
    page = ROOT / "docs" / "captions.md"
    return write_or_check(
        __doc__ or "", page, [RESULTS], lambda text, lines: put_between(text, BEGIN, END, table(list(lines)))
    )


if __name__ == "__main__":
    sys.exit(main())
