"""Known gene sets among the genes a model chose or ranked: GMT files, Fisher's exact test, enrichment of a ranking."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from gexlib.cohort import CohortError
from gexlib.evaluate import false_discovery_rate
from gexlib.sources.matrix import read_text
from gexlib.words import nearest


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


def sets_of_modules(modules: pd.Series) -> dict[str, frozenset[str]]:
    """The gene sets of a cohort whose genes belong to modules.

    Parameters
    ----------
    modules : var["module"] of a cohort: index genes, one module each; "", "none" or NaN where a gene is in none

    Returns
    -------
    {module: its genes}, in the order of their names (of its categories for a categorical)

    Raises
    ------
    CohortError : no gene is in a module
    """
    some = modules[modules.notna() & ~modules.astype(str).isin(["", "none"])]
    if some.empty:
        raise CohortError(f"none of the {len(modules)} genes is in a module; give a column such as var['module'].")
    grouped = some.groupby(some, observed=True)
    return {str(name): frozenset(members.index) for name, members in grouped}


def gsea_per_patient(
    scores: pd.DataFrame | np.ndarray,
    genes: Iterable[str],
    sets: Mapping[str, frozenset[str]],
    *,
    permutations: int = 10_000,
    smallest: int = 15,
    largest: int = 500,
    weight: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
) -> pd.DataFrame:
    """Which gene sets lie at the top, or the bottom, of each patient's ranking of the genes: pre-ranked GSEA.

    Smedley et al. 2020 ("Methods": gene saliency; study 04) rank the genes of a patient by their saliency. Their code
    gives the ranking to fgsea with 10,000 permutations and sets of 15 to 500 genes, one collection of sets a call, and
    leaves patients out whose saliency is all zero. Statistics are those of fgsea's simple permutations: the score of a
    set beside the scores of random sets of its size, of the same sign. Assumed: weight 1, its default.

    Random sets ignore that genes are correlated: a small q says that the set's genes rank higher than as many others,
    not that they would in other patients. `gseapy.prerank` gives the same scores, at a hundred times the cost
    (benchmarks/gsea_per_patient.py), and p 0 where no random set reaches a score; its "FDR q-val" is the q of
    Subramanian et al. 2005, from the nes of all sets, and not Benjamini-Hochberg.

    Parameters
    ----------
    scores : (patients, genes), the higher the nearer the top; of an array, patients are the numbers of its rows. Genes
        with equal scores are ranked at random, by the seed, since an order by name would put gene families together
    genes : names of the columns; their order does not matter
    sets : {set name: genes}, as `read_gmt` or `sets_of_modules` gives it; each is cut to `genes`
    permutations : random sets of every size. The smallest p is 1 / (1 + those of the same sign), about half of them for
        a ranking of both signs: one set alone among S reaches q < 0.05 only with more than 20 S of the same sign
    smallest, largest : sets with fewer or more genes are not tested, nor is one of all genes
    weight : power of the absolute score by which a gene of the set counts; 0 counts all alike
    seed : with a patient's name it decides the random sets and the order of equal scores, so that neither the other
        patients nor their order matter
    workers : threads, all processors by default; results do not depend on it

    Returns
    -------
    DataFrame, a row for each patient and set in the order given, columns patient, set, es (the largest deviation of the
    running sum, -1 to 1), nes (es over the mean of the random sets' of its sign; NaN where there is none), p (one-sided
    for the sign of es, (b + 1) / (m + 1) with b of m random sets as extreme: never 0), q (Benjamini-Hochberg within the
    patient, over the sets of this call), size (genes of the set that are ranked), leading edge (share of them up to the
    peak, or from the trough on). attrs["left out"] lists the patients whose scores are constant.

    Raises
    ------
    CohortError : scores that are no matrix with a column a gene, other names than `genes` on the columns, a gene or
        patient named twice, a score that is not finite, constant scores in all patients, no set of the size asked for
    ValueError : fewer than one permutation
    """
    if permutations < 1:
        raise ValueError(f"permutations={permutations}: expected 1 or more.")
    scores = _by_gene(scores, genes)
    tested = _cut(sets, frozenset(scores.columns), smallest, min(largest, len(scores.columns) - 1))
    values = scores.to_numpy()
    constant = values.min(axis=1) == values.max(axis=1)
    if constant.all():
        raise CohortError(f"the scores of each of the {len(scores)} rows are constant: there is nothing to rank.")
    members = [scores.columns.get_indexer(list(one)) for one in tested.values()]

    def walked(patient):
        rng = np.random.default_rng([seed, zlib.crc32(str(scores.index[patient]).encode())])
        return _one_ranking(values[patient], members, permutations, weight, rng)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        tables = list(pool.map(walked, np.flatnonzero(~constant)))
    found = pd.concat(tables, ignore_index=True)
    found.insert(0, "patient", np.repeat(scores.index[~constant], len(tested)))
    found.insert(1, "set", list(tested) * len(tables))
    found.attrs["left out"] = list(scores.index[constant])
    return found


def gsea(
    score: pd.Series | np.ndarray, genes: Iterable[str], sets: Mapping[str, frozenset[str]], **options
) -> pd.DataFrame:
    """`gsea_per_patient` of one ranking, such as the correlation of every gene with a label (study 04's baselines).

    Parameters
    ----------
    score : (genes,)
    genes, sets, options : as for `gsea_per_patient`

    Returns
    -------
    DataFrame, index set, sorted by p, columns es, nes, p, q, size, leading edge, as there

    Raises
    ------
    CohortError, ValueError : as for `gsea_per_patient`
    """
    if np.ndim(score) != 1:
        raise CohortError(f"the score has the shape {np.shape(score)}; expected one number for every gene.")
    table = gsea_per_patient(pd.DataFrame([score], index=["ranking"]), genes, sets, **options)
    return table.drop(columns="patient").set_index("set").sort_values("p", kind="stable")


def indicators(table: pd.DataFrame, level: float = 0.05) -> pd.DataFrame:
    """Radiogenomic traits: whether a set is positively enriched in a patient, nes > 0 and q < `level`.

    Stated by Smedley et al. 2020: positive enrichment between a patient's salient genes and a gene set; in their code
    an adjusted p below 0.05.

    Parameters
    ----------
    table : as `gsea_per_patient` gives it

    Returns
    -------
    DataFrame of bool, patients x sets, both in the order of the table; patients that were left out are not in it

    Raises
    ------
    CohortError : a set is there twice for a patient
    """
    twice = table.duplicated(["patient", "set"])
    if twice.any():
        patient, name = table.loc[twice, ["patient", "set"]].iloc[0]
        raise CohortError(
            f"patient '{patient}': the set '{name}' is there twice; give the table of one label at a time."
        )
    enriched = table.assign(enriched=(table["nes"] > 0) & (table["q"] < level))
    wide = enriched.pivot(index="patient", columns="set", values="enriched")
    return wide.loc[table["patient"].unique(), table["set"].unique()]


def coverage(sets: Mapping[str, frozenset[str]], genes: Iterable[str]) -> pd.Series:
    """Share of each set's genes that are in `genes`, index set: low where symbols have been renamed or filtered out."""
    genes = frozenset(genes)
    return pd.Series({name: len(members & genes) / len(members) for name, members in sets.items()}, name="coverage")


def _cut(
    sets: Mapping[str, frozenset[str]], background: frozenset[str], smallest: int, largest: int | None = None
) -> dict[str, frozenset[str]]:
    """The sets' genes of the background, for the sets that have `smallest` to `largest` of them."""
    if not background:
        raise CohortError("the background is empty; give the genes that the model was given.")
    most = len(background) if largest is None else largest
    tested = {name: members & background for name, members in sets.items()}
    tested = {name: members for name, members in tested.items() if smallest <= len(members) <= most}
    if not tested:
        known = min(frozenset().union(*sets.values()), default="none")
        asked = f"{smallest} genes or more" if largest is None else f"{smallest} to {largest} genes"
        raise CohortError(
            f"none of the {len(sets)} gene sets has {asked} among the {len(background)} of the "
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


def _by_gene(scores: pd.DataFrame | np.ndarray, genes: Iterable[str]) -> pd.DataFrame:
    """The scores in float64, columns sorted by the genes' names; or a word on what is wrong with them."""
    genes = pd.Index(genes)
    if np.ndim(scores) != 2 or np.shape(scores)[1] != len(genes):
        raise CohortError(
            f"the scores have the shape {np.shape(scores)}; expected (patients, {len(genes)}), a column for every gene."
        )
    if isinstance(scores, pd.DataFrame) and not isinstance(scores.columns, pd.RangeIndex):
        strange = np.flatnonzero(scores.columns != genes)
        if len(strange):
            raise CohortError(
                f"column {strange[0]} of the scores is '{scores.columns[strange[0]]}' and gene {strange[0]} is "
                f"'{genes[strange[0]]}'; give the genes in the order of the columns."
            )
    scores = pd.DataFrame(scores).set_axis(genes, axis=1).astype(float)
    for names, what in ((genes, "gene"), (scores.index, "patient")):
        if names.has_duplicates:
            raise CohortError(f"the {what} '{names[names.duplicated()][0]}' is there twice; name each {what} once.")
    row, column = np.nonzero(~np.isfinite(scores.to_numpy()))
    if len(row):
        raise CohortError(
            f"'{scores.index[row[0]]}', gene '{genes[column[0]]}': the score is {scores.iat[row[0], column[0]]}; "
            f"expected a finite number; leave the gene out or score it 0."
        )
    return scores.sort_index(axis=1)


def _one_ranking(
    score: np.ndarray, members: list[np.ndarray], permutations: int, weight: float, rng: np.random.Generator
) -> pd.DataFrame:
    """The sets in one ranking: a row each. `members` holds the columns of each set."""
    ranked = np.lexsort((rng.permutation(len(score)), -score))
    place = np.empty(len(score), dtype=np.int64)
    place[ranked] = np.arange(len(score))
    weights = np.abs(score[ranked]) ** weight
    size = np.array([len(one) for one in members])
    sizes = np.unique(size)
    chance = dict(zip(sizes, _random_scores(weights, sizes, permutations, rng), strict=True))
    rows = []
    for one in members:
        es, edge = _walk(weights, np.sort(place[one]))
        same = chance[len(one)] if es >= 0 else -chance[len(one)]
        same = same[same >= 0]
        # scores that are equal but for rounding count as equal
        p = (1 + np.count_nonzero(same >= abs(es) - 1e-12)) / (1 + len(same))
        rows.append((es, es / same.mean() if len(same) else np.nan, p, edge / len(one)))
    es, nes, p, edge = np.array(rows).T
    return pd.DataFrame(
        {"es": es, "nes": nes, "p": p, "q": false_discovery_rate(p), "size": size, "leading edge": edge}
    )


@numba.njit(nogil=True, cache=True)
def _walk(weights, places):
    """Enrichment score of a set and the genes in its leading edge; `places` are its genes' in the ranking, rising."""
    size = places.size
    total = 0.0
    for place in places:
        total += weights[place]
    miss = 1.0 / (weights.size - size)
    running = high = low = 0.0
    at_high = at_low = 0
    for i, place in enumerate(places):
        missed = (place - i) * miss
        if running - missed < low:
            low, at_low = running - missed, i
        running += weights[place] / total if total > 0 else 1.0 / size
        if running - missed > high:
            high, at_high = running - missed, i
    return (high, at_high + 1) if high >= -low else (low, size - at_low)


@numba.njit(nogil=True, cache=True)
def _random_scores(weights, sizes, permutations, rng):
    """Scores of random sets, (sizes, permutations); of one permutation, larger sets hold the smaller ones."""
    genes = weights.size
    scores = np.empty((sizes.size, permutations))
    shuffled = np.arange(genes)
    places = np.empty(sizes[-1], dtype=np.int64)
    for b in range(permutations):
        count = 0
        for s in range(sizes.size):
            while count < sizes[s]:
                drawn = count + int(rng.random() * (genes - count))
                place = shuffled[drawn]
                shuffled[drawn], shuffled[count] = shuffled[count], place
                at = count
                while at > 0 and places[at - 1] > place:
                    places[at] = places[at - 1]
                    at -= 1
                places[at] = place
                count += 1
            scores[s, b] = _walk(weights, places[:count])[0]
    return scores
