"""What the study abbreviations of TCGA stand for."""

from __future__ import annotations

import anndata
import pandas as pd

from gexlib.cohort import CohortError, column_of, nearest

TYPES_OF = {
    "adrenal gland": ("ACC", "PCPG"),
    "bladder": ("BLCA",),
    "breast": ("BRCA",),
    "cervix": ("CESC",),
    "bile duct": ("CHOL",),
    "colorectal": ("COAD", "READ"),
    "lymph nodes": ("DLBC",),
    "oesophagus": ("ESCA",),
    "brain": ("GBM", "LGG"),
    "head and neck": ("HNSC",),
    "kidney": ("KICH", "KIRC", "KIRP"),
    "bone marrow": ("LAML",),
    "liver": ("LIHC",),
    "lung": ("LUAD", "LUSC"),
    "pleura": ("MESO",),
    "ovary": ("OV",),
    "pancreas": ("PAAD",),
    "prostate": ("PRAD",),
    "soft tissue": ("SARC",),
    "skin": ("SKCM",),
    "stomach": ("STAD",),
    "testis": ("TGCT",),
    "thyroid": ("THCA",),
    "thymus": ("THYM",),
    "uterus": ("UCEC", "UCS"),
    "eye": ("UVM",),
}
SITE_OF = {name: site for site, types in TYPES_OF.items() for name in types}  # 33 types, 26 organ sites


def with_sites(cohort: anndata.AnnData, column: str = "cohort") -> anndata.AnnData:
    """Write the organ site of each sample as the categorical `obs["site"]`; a cohort that has one is left alone.

    Parameters
    ----------
    cohort : samples x genes
    column : the column of `obs` that holds the TCGA type, such as ``BRCA``

    Raises
    ------
    CohortError : the column is absent, or a value is no TCGA type
    """
    if "site" in cohort.obs:
        return cohort
    types = column_of(cohort, column)
    unknown = types[~types.isin(SITE_OF)]
    if len(unknown):
        raise CohortError(
            f"{cohort.uns.get('cohort', 'cohort')}: '{unknown.iloc[0]}' in '{column}' is no TCGA type "
            f"({nearest(unknown.iloc[0], SITE_OF)})."
        )
    cohort.obs["site"] = sites_of(types)
    return cohort


def sites_of(types: pd.Series) -> pd.Categorical:
    """The organ site of each TCGA type; the categories are those that occur, in the order of `SITE_OF`."""
    return pd.Categorical(types.astype(object).map(SITE_OF), [*TYPES_OF]).remove_unused_categories()
