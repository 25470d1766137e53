"""Splits that never put one patient on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import anndata
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from gexlib.cohort import CohortError, column_of


def plain_split(n: int, test_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of one random split that knows neither classes nor patients (as published in study 01)."""
    return train_test_split(np.arange(n), test_size=test_share, random_state=seed)


def given_split(cohort: anndata.AnnData, column: str, train_value: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training part and of the rest, as a column of the samples table says; a blank is in neither.

    Raises
    ------
    CohortError : no such column, no such value, or a patient on both sides
    """
    where = cohort.uns["cohort"]
    values, known = column_of(cohort, column).astype(str), cohort.obs[column].notna().to_numpy()
    train = (values == train_value).to_numpy()
    if not 0 < train.sum() < len(train):
        raise CohortError(
            f"{where}: '{column}' equals train_value '{train_value}' for {train.sum()} of {len(train)} samples; "
            f"it holds {', '.join(sorted(values.unique())[:8])}."
        )
    test = known & ~train
    both = set(cohort.obs["patient"][train]) & set(cohort.obs["patient"][test])
    if both:
        raise CohortError(f"{where}: {len(both)} patients are on both sides of '{column}', such as '{min(both)}'.")
    return np.flatnonzero(train), np.flatnonzero(test)


def grouped_folds(
    y: pd.Series, patients: pd.Series, folds: int, repeats: int = 1, seed: int = 0
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Repeated k-fold, stratified by class, all samples of a patient on one side.

    Yields
    ------
    (repeat, train rows, test rows), folds x repeats times

    Raises
    ------
    CohortError : a class has fewer patients than folds
    """
    y, patients = np.asarray(y).astype(str), np.asarray(patients).astype(str)
    counts = pd.DataFrame({"y": y, "patient": patients}).groupby("y")["patient"].nunique()
    if counts.min() < folds:
        fewer = f"use folds={counts.min()} or " if counts.min() > 1 else ""
        raise CohortError(
            f"class '{counts.idxmin()}' has {counts.min()} patients, fewer than {folds} folds; "
            f"{fewer}leave the class out."
        )
    for repeat in range(repeats):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + repeat)
        for train, test in splitter.split(np.zeros(len(y)), y, patients):
            yield repeat, train, test


def at_most(folds: int, y: np.ndarray, patients: np.ndarray) -> int:
    """`folds`, or as many as the rarest class has patients, but at least two."""
    smallest = pd.DataFrame({"y": y, "patient": patients}).groupby("y")["patient"].nunique().min()
    return int(np.clip(smallest, 2, folds))


def parts_within(parts: Iterable[tuple], rows: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """The same folds for some of the samples: their positions among `rows`, those of other samples left out."""
    parts = list(parts)
    place = np.full(1 + max(part.max() for _, *sides in parts for part in (rows, *sides)), -1)
    place[rows] = np.arange(len(rows))
    return [(repeat, *(place[part][place[part] >= 0] for part in sides)) for repeat, *sides in parts]


def few_per_class(
    y: np.ndarray, patients: np.ndarray, size: int, draws: int, seed: int
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Draws of `size` patients of each class to train with, one sample each; everyone else's samples are tested.

    Other samples of a training patient, such as the normal beside a tumour, are on neither side.

    Returns
    -------
    (draw, train rows, test rows), `draws` of them

    Raises
    ------
    CohortError : a class has too few patients, so that none would be left to train with or to test
    """
    rng, parts = np.random.default_rng([seed, size]), []
    for draw in range(draws):
        train = []
        for name in np.unique(y):
            rows = rng.permutation(np.flatnonzero((y == name) & ~np.isin(patients, patients[train])))
            rows = rows[np.sort(np.unique(patients[rows], return_index=True)[1])]  # one a patient, order kept
            if len(rows) <= size:
                raise CohortError(f"class '{name}' has {len(rows)} patients to draw {size} from; draw fewer.")
            train += list(rows[:size])
        test = np.flatnonzero(~np.isin(patients, patients[train]))
        if absent := sorted(set(y) - set(y[test])):
            raise CohortError(f"with {size} patients of each class drawn, none of class '{absent[0]}' is left to test.")
        parts.append((draw, np.array(train), test))
    return parts


def thinned(
    parts: Iterable[tuple], some: np.ndarray, patients: np.ndarray, share: float, seed: int
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """The same folds with fewer training samples of one kind: of those in `some`, a share of the patients stays."""
    rng, kept = np.random.default_rng(seed), []
    for repeat, train, test in parts:
        givers = rng.permutation(np.unique(patients[train[some[train]]]))
        gone = np.isin(patients[train], givers[max(1, round(share * len(givers))) :]) & some[train]
        kept.append((repeat, train[~gone], test))
    return kept


def bootstrapped(y: np.ndarray, patients: np.ndarray, folds: int, draws: int, seed: int) -> list[tuple]:
    """Bootstrap of a cross-validation (Smedley et al. 2020): every draw deals new folds, then draws rows on each side.

    Rows are drawn with replacement from the training part and from the test part, until the test rows hold every class
    of that part. A training row that was not drawn may decide when to stop.

    Returns
    -------
    (draw, train rows, test rows, training rows not drawn), folds x draws of them; rows repeat

    Raises
    ------
    CohortError : a class has fewer patients than folds
    """
    parts = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        for _, train, test in grouped_folds(y, patients, folds, seed=seed + 7919 * draw):
            drawn = rng.choice(train, len(train))
            while len(set(y[drawn])) < len(set(y[train])):
                drawn = rng.choice(train, len(train))
            asked = rng.choice(test, len(test))
            while len(set(y[asked])) < len(set(y[test])):
                asked = rng.choice(test, len(test))
            parts.append((draw, np.sort(drawn), np.sort(asked), np.setdiff1d(train, drawn)))
    return parts


def need_every_class(labels: pd.Series, parts: dict[str, np.ndarray]) -> None:
    """Refuse a split whose training or test rows lack a class of `labels`.

    Raises
    ------
    CohortError : names the part, the class and what to do
    """
    for part, rows in parts.items():
        counts = labels.iloc[rows].value_counts()
        for name in labels.unique():
            if counts.get(name, 0) == 0:
                raise CohortError(f"the {part} part holds no '{name}'; change the seed, or leave that class out.")


def inner_split(y: np.ndarray, patients: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four fifths to fit and one fifth to decide when to stop, within a training fold; stratified, by patient.

    Where the smallest class has fewer than five patients, the part that decides grows to one in that many.
    """
    _, fit, stop = next(grouped_folds(y, patients, folds=at_most(5, y, patients), seed=seed))
    return fit, stop
