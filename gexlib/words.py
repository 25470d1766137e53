"""What an error says of a word that nobody knows. Imports nothing heavy: a mistyped command is told at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """A clause that names the known words nearest to `name`, or lists the first few when none is near."""
    known = [str(word) for word in known]
    near = difflib.get_close_matches(str(name), known, n=n, cutoff=0.5)
    if near:
        return "nearest: " + ", ".join(near)
    return "there are: " + ", ".join(known[:12]) + (", …" if len(known) > 12 else "") if known else "there are none"
