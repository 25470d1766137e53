"""Fold-safe transforms as scikit-learn transformers: what they learn, they learn from training samples alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind_from_stats
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from gexlib.cohort import CohortError
from gexlib.words import nearest

GENES_WITHOUT_SURVIVORS = 10  # kept where no gene passes the t-test, so that every fold has a model


def scaler(scale: bool):
    """z-score each gene by the training samples' mean and SD, or leave the values as they are."""
    return StandardScaler() if scale else FunctionTransformer()


class LowInformationFilter(TransformerMixin, BaseEstimator):
    """Set genes to zero that say little: a low mean or a low SD over the samples (Mostavi et al. 2020, section 2.1).

    The paper drops them, judged on all samples. Fitted inside a fold, the filter masks instead, so that every fold has
    the same genes and one compilation serves all; a masked gene can tell nothing and gets no score.

    Parameters
    ----------
    mean, sd : genes below either are masked; the paper's 0.5 and 0.8 are for log2(FPKM+1)

    Attributes
    ----------
    kept_ : (genes,) bool
    """

    def __init__(self, mean: float = 0.5, sd: float = 0.8):
        self.mean, self.sd = mean, sd

    def fit(self, x: np.ndarray, y: object = None) -> LowInformationFilter:
        """Judge every gene on these samples, (samples, genes).

        Raises
        ------
        CohortError : no gene passes
        """
        self.kept_ = (x.mean(axis=0) >= self.mean) & (x.std(axis=0) >= self.sd)
        if not self.kept_.any():
            raise CohortError(
                f"no gene has a mean of {self.mean} and an SD of {self.sd}; lower them, as for z-scores or microRNA."
            )
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """A copy with the masked genes at 0."""
        return np.where(self.kept_, x, np.float32(0))


def with_noise(x: np.ndarray, means: np.ndarray, k: float, seed: object) -> np.ndarray:
    """Gaussian noise of `k` times each gene's mean, and 0 for what falls below (Mostavi et al. 2020, section 2.1).

    Its formula for the variance is lost in print; a standard deviation of `k` means is assumed. The same seed gives
    the same draws at every `k`.
    """
    draws = np.random.default_rng(seed).standard_normal(x.shape, dtype=np.float32)
    return np.maximum(x + np.float32(k) * means.astype(np.float32) * draws, 0)


def clinical_matrix(obs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Clinical columns as numbers, samples x features: log2(x + 1) of numbers, one 0/1 column for each level of words.

    A missing word is a level of its own and a missing number 0 with a column that says so; no statistic of the samples
    enters, so this is safe before a split.

    Raises
    ------
    CohortError : a column is absent, or a number is negative
    """
    features = []
    for column in columns:
        if column not in obs:
            raise CohortError(f"no clinical column '{column}' in the samples table ({nearest(column, obs.columns)}).")
        values = obs[column]
        if not pd.api.types.is_numeric_dtype(values):
            words = values.astype(object).where(values.notna(), "missing").astype(str)
            features.append(pd.get_dummies(words, prefix=column, dtype=np.float32))
            continue
        if (values < 0).any():
            raise CohortError(f"clinical column '{column}' has negative numbers; correct it or leave it out.")
        features.append(np.log2(values.astype(np.float32) + 1).fillna(0).rename(column))
        if values.isna().any():
            features.append(values.isna().astype(np.float32).rename(f"{column}_missing"))
    return pd.concat(features, axis=1)


def welch_p_values(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two-sided p-value of each gene, (genes,), from Welch's t-test of class 1 against class 0; a constant gene has 1.

    Parameters
    ----------
    x : (samples, genes)
    y : (samples,) of 0 and 1

    Raises
    ------
    CohortError : a value is not finite, `y` holds something else, or a class has fewer than two samples
    """
    counts = {k: int((np.asarray(y) == k).sum()) for k in (0, 1)}
    if min(counts.values()) < 2 or sum(counts.values()) != len(x):
        found = dict(zip(*np.unique(y, return_counts=True), strict=True))
        found = ", ".join(f"{count} of class {name}" for name, count in found.items())
        raise CohortError(
            f"the t-test needs classes 0 and 1, two samples of each at least, for {len(x)} rows; found {found}."
        )
    stats = []
    for k in (0, 1):
        values = x[np.asarray(y) == k].astype(np.float64)
        stats += [values.mean(axis=0), values.std(axis=0, ddof=1), counts[k]]
    bad = np.flatnonzero(~np.isfinite(stats[0] + stats[3]))
    if bad.size:
        raise CohortError(f"gene number {bad[0]} holds a value that is not finite; fill or drop it before the t-test.")
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = ttest_ind_from_stats(*stats, equal_var=False).pvalue
    return np.where(np.isnan(p_values), 1.0, p_values)


def t_test_correlation(x: np.ndarray, y: np.ndarray, target: int, p: float = 0.001) -> np.ndarray:
    """The gene choice of DeepNet i (Urda et al. 2017, section 2.2): a t-test, then a filter of correlated genes.

    Stated by the paper: a t-test at p < 0.001, then a correlation filter until the number of genes "is similar" to
    LASSO's. Assumed: Welch's test (the default of R's t.test); genes are taken by p-value, and one is dropped where its
    absolute Pearson correlation with a gene already kept is over a threshold; the threshold starts at 0.9 and falls
    by 0.05, each time from all genes that passed, to the first at which no more than `target` are left. Where no more
    than `target` pass the t-test, all of them are kept; where none passes, the ten smallest p-values are.

    Parameters
    ----------
    x : (samples, genes), training samples alone
    y : (samples,) of 0 and 1
    target : genes at most, the mean number that LASSO keeps
    p : threshold of the t-test

    Returns
    -------
    gene numbers, by p-value

    Raises
    ------
    CohortError : as `welch_p_values`; or `target` or `p` is out of range
    """
    if target < 1 or not 0 < p <= 1:
        raise CohortError(f"target={target}, p={p}: expected target of 1 or more and 0 < p <= 1.")
    p_values = welch_p_values(x, y)
    order = np.argsort(p_values, kind="stable")
    passed = order[: (p_values < p).sum()]
    if passed.size == 0:
        return order[: min(GENES_WITHOUT_SURVIVORS, target)]
    if passed.size <= target:
        return passed
    r = np.abs(_correlations(x[:, passed]))
    for threshold in np.arange(18, -1, -1) / 20:  # at 0 a single gene is left, so this ends
        kept = _uncorrelated(r, threshold)
        if len(kept) <= target:
            break
    return passed[kept]


def _correlations(x: np.ndarray) -> np.ndarray:
    """Pearson correlations, (genes, genes) float32; with a constant gene, 0."""
    z = x - x.mean(axis=0, dtype=np.float64)
    z = (z / np.maximum(np.linalg.norm(z, axis=0), np.finfo(np.float64).tiny)).astype(np.float32)
    return z.T @ z


def _uncorrelated(r: np.ndarray, threshold: float) -> list[int]:
    """Positions kept when genes are taken in order and those over `threshold` with a kept one are dropped."""
    dropped, kept = np.zeros(len(r), dtype=bool), []
    for gene in range(len(r)):
        if not dropped[gene]:
            kept.append(gene)
            dropped |= r[gene] > threshold
    return kept
