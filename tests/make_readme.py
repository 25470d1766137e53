"""Draw the README's front table, the claims at a glance, from the committed results: `python tests/make_readme.py`."""

import re

from gexlib.claims.ledger import front_table
from gexlib.files import home, write_text

MARKED = re.compile(r"(<!-- ledger: drawn by tests/make_readme.py -->\n).*?(<!-- end of ledger -->)", re.DOTALL)


def with_front_table(readme: str) -> str:
    """The README with a fresh table between the two marks.

    Raises
    ------
    ValueError : the marks are not there
    """
    if not MARKED.search(readme):
        raise ValueError(
            "README.md: expected the marks of the ledger, '<!-- ledger: … -->' and '<!-- end of ledger -->'."
        )
    return MARKED.sub(lambda found: found[1] + front_table() + "\n" + found[2], readme)


if __name__ == "__main__":
    path = home() / "README.md"
    write_text(path, with_front_table(path.read_text(encoding="utf-8")))
