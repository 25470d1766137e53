"""Fold-safe transforms as scikit-learn transformers: what they learn, they learn from training samples alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from gexlib.cohort import CohortError, nearest


def scaler(scale: bool):
    """z-score each gene by the training samples' mean and SD, or leave the values as they are."""
    return StandardScaler() if scale else FunctionTransformer()


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
