"""Known gene sets among the genes a model chose: GMT files, Fisher's exact test against the model's own genes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from gexlib.cohort import CohortError, nearest
from gexlib.evaluate import false_discovery_rate
from gexlib.sources.matrix import read_text


def read_gmt(path: str | Path) -> dict[str, frozenset[str]]:
    """Gene sets of a GMT file, plain or gzipped: a set's name, a description and its genes on a line, tab-separated.

    ``real:c2.cgp.v7.1`` is the prepared file of that name in the folder gene_sets under GEXLIB_REAL_DATA. gseapy's
    reader passes over lines that are too short, keeps the last of two sets of a name and takes no gzip.

    Returns
    -------
    {set name: its genes}, in the order of the file

    Raises
    ------
    CohortError : no such file, a damaged gzip, no text, a line of fewer than three fields, a set name twice, or no set
    """
    path = _prepared(str(path)) if str(path).startswith("real:") else path
    try:
        text = read_text(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CohortError(f"{path}: this is no UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    sets = {}
    for number, line in enumerate(text.split("\n"), start=1):
        name, *fields = (field.strip() for field in line.split("\t"))
        genes = frozenset(fields[1:]) - {""}
        if not name and not any(fields):
            continue
        if not name or not genes:
            raise CohortError(
                f"{path}, line {number}: not a line of a GMT file, which holds a set name, a description and one gene "
                f"or more, tab-separated; found {line.strip()[:60]!r}: correct or remove it."
            )
        if name in sets:
            raise CohortError(f"{path}, line {number}: the set '{name}' is there twice; rename or remove one.")
        sets[name] = genes
    if not sets:
        raise CohortError(f"{path}: the file holds no gene set; expected a GMT file, one set a line.")
    return sets


def _prepared(name: str) -> Path:
    """The GMT file behind ``real:NAME``."""
    folder = Path(os.environ.get("GEXLIB_REAL_DATA", "")) / "gene_sets"
    if not os.environ.get("GEXLIB_REAL_DATA") or not folder.is_dir():
        raise CohortError(f"{name}: GEXLIB_REAL_DATA names no folder that holds gene_sets; see data/README.md.")
    known = {re.sub(r"(\.symbols)?\.gmt(\.gz)?$", "", path.name): path for path in sorted(folder.glob("*.gmt*"))}
    wanted = name.removeprefix("real:")
    if wanted not in known:
        raise CohortError(f"{name}: no such gene sets under GEXLIB_REAL_DATA ({nearest(wanted, known)}).")
    return known[wanted]


def enrichment(
    markers: Iterable[str], background: Iterable[str], sets: Mapping[str, frozenset[str]], smallest: int = 5
) -> pd.DataFrame:
    """Which gene sets hold more of the markers than chance would give: one-tailed Fisher's exact test.

    Stated by Mostavi et al. 2020 ("Interpretation of the 1D-CNN model to investigate cancer marker genes", notebook
    02): sets of MSigDB's CGP, one-tailed, p < 0.001; no correction is mentioned. Not stated: the background. Here it is
    the model's genes, which alone could have become markers; every set is cut to them.

    Parameters
    ----------
    markers : genes the model points at, all of them in `background`; may be empty, then every p is 1
    background : the genes the model was given
    sets : {set name: genes}, as `read_gmt` gives it
    smallest : sets with fewer genes of the background are not tested

    Returns
    -------
    DataFrame, index set, sorted by p, columns overlap (markers in the set), size (genes of the set in the background),
    expected (overlap by chance), odds ratio (of the sample; infinite or NaN where a cell of the table is 0), p, and q
    (Benjamini-Hochberg over all tested sets)

    Raises
    ------
    CohortError : a marker is not in the background, the background is empty, or no set is large enough
    """
    table = enrichment_by_class({"markers": markers}, background, sets, smallest)
    return table.drop(columns="class").set_index("set")


def enrichment_by_class(
    markers: Mapping[str, Iterable[str]],
    background: Iterable[str],
    sets: Mapping[str, frozenset[str]],
    smallest: int = 5,
) -> pd.DataFrame:
    """`enrichment` of the markers of every class, with q (Benjamini-Hochberg) over all tests made: classes x sets.

    Parameters
    ----------
    markers : {class: genes}
    background, sets, smallest : as for `enrichment`

    Returns
    -------
    DataFrame with columns class, set and those of `enrichment`; classes in the order given, each sorted by p

    Raises
    ------
    CohortError : as for `enrichment`; the class is named
    """
    background = frozenset(background)
    tested = _cut(sets, background, smallest)
    size = np.array([len(genes) for genes in tested.values()])
    tables = []
    for name, genes in markers.items():
        genes = frozenset(genes)
        _check_markers(genes, background, name)
        overlap = np.array([len(genes & members) for members in tested.values()])
        table = pd.DataFrame({"class": name, "set": list(tested), "overlap": overlap, "size": size})
        table["expected"] = size * len(genes) / len(background)
        table["odds ratio"] = _odds_ratio(overlap, size, len(genes), len(background))
        table["p"] = hypergeom.sf(overlap - 1, len(background), size, len(genes))
        tables.append(table.sort_values("p", kind="stable"))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(q=false_discovery_rate(table["p"]))


def coverage(sets: Mapping[str, frozenset[str]], genes: Iterable[str]) -> pd.Series:
    """Share of each set's genes that are in `genes`, index set: low where symbols have been renamed or filtered out."""
    genes = frozenset(genes)
    return pd.Series({name: len(members & genes) / len(members) for name, members in sets.items()}, name="coverage")


def _cut(sets: Mapping[str, frozenset[str]], background: frozenset[str], smallest: int) -> dict[str, frozenset[str]]:
    """The sets' genes of the background, for the sets that have `smallest` of them or more."""
    if not background:
        raise CohortError("the background is empty; give the genes that the model was given.")
    tested = {name: members & background for name, members in sets.items()}
    tested = {name: members for name, members in tested.items() if len(members) >= smallest}
    if not tested:
        known = min(frozenset().union(*sets.values()), default="none")
        raise CohortError(
            f"none of the {len(sets)} gene sets has {smallest} genes or more among the {len(background)} of the "
            f"background; name genes alike in both (sets: '{known}', background: '{min(background)}')."
        )
    return tested


def _check_markers(markers: frozenset[str], background: frozenset[str], where: str) -> None:
    strange = sorted(markers - background)
    if strange:
        named = ", ".join(f"'{gene}'" for gene in strange[:3]) + (", …" if len(strange) > 3 else "")
        raise CohortError(
            f"{where}: {len(strange)} of {len(markers)} markers are not in the background: {named} ('{strange[0]}': "
            f"{nearest(strange[0], sorted(background))}); give the genes the model was given as background."
        )


def _odds_ratio(overlap: np.ndarray, size: np.ndarray, markers: int, background: int) -> np.ndarray:
    """Odds ratio of the 2 x 2 table of each set, (sets,)."""
    neither = background - size - markers + overlap
    with np.errstate(divide="ignore", invalid="ignore"):
        return overlap * neither / ((size - overlap) * (markers - overlap))
