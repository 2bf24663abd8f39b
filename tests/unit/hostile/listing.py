"""The tables of ``tests/data/hostile/README.md``: what there is, and how each ends."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "data" / "hostile" / "README.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \|.*\| (passes|[a-z_]+) \|$", re.MULTILINE)


def expected(heading: str) -> dict[str, str]:
    """Return the rows of one section: name -> ``passes`` or the code of the error."""
    section = README.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return dict(ROW.findall(section))
