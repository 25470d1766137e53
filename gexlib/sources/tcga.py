"""TCGA's own words: study abbreviations and their organ sites, and the barcodes that name its samples."""

from __future__ import annotations

import re
from collections.abc import Iterable

import anndata
import numpy as np
import pandas as pd

from gexlib.cohort import CohortError, column_of, note_transform
from gexlib.words import nearest

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
SAMPLE_TYPES = {  # GDC's code table of sample types: https://gdc.cancer.gov/resources-tcga-users/tcga-code-tables
    "01": "Primary Solid Tumor",
    "02": "Recurrent Solid Tumor",
    "03": "Primary Blood Derived Cancer - Peripheral Blood",
    "04": "Recurrent Blood Derived Cancer - Bone Marrow",
    "05": "Additional - New Primary",
    "06": "Metastatic",
    "07": "Additional Metastatic",
    "08": "Human Tumor Original Cells",
    "09": "Primary Blood Derived Cancer - Bone Marrow",
    "10": "Blood Derived Normal",
    "11": "Solid Tissue Normal",
    "12": "Buccal Cell Normal",
    "13": "EBV Immortalized Normal",
    "14": "Bone Marrow Normal",
    "20": "Control Analyte",
    "40": "Recurrent Blood Derived Cancer - Peripheral Blood",
    "50": "Cell Lines",
    "60": "Primary Xenograft Tissue",
    "61": "Cell Line Derived Xenograft Tissue",
}
BARCODE = re.compile(  # of the programmes TCGA and TARGET, cut behind any field
    r"(?P<patient>TCGA-\w{2}-\w{4}|TARGET-\d{2}-\w{6})(-(?P<type_code>\d{2})(?P<vial>[A-Z])?"
    r"(-(?P<portion>\d{2})(?P<analyte>[A-Z])?(-(?P<plate>\w{4})(-(?P<centre>\d{2}))?)?)?)?"
)
FIELDS = ("patient", "type_code", "sample_type", "tissue", "vial", "portion", "analyte", "plate", "centre")
VITAL = ("dead", "alive")
SITE_OF = {name: site for site, types in TYPES_OF.items() for name in types}  # 33 types, 26 organ sites


def with_sites(cohort: anndata.AnnData, column: str = "cohort") -> anndata.AnnData:
    """Write the organ site of each sample as the categorical `obs["site"]`; a cohort that has one is left alone.

    Where no class is a TCGA type, each stands for a site of its own, and provenance says so.

    Parameters
    ----------
    cohort : samples x genes
    column : the column of `obs` that holds the TCGA type, such as ``BRCA``

    Raises
    ------
    CohortError : the column is absent, or a value is no TCGA type while others are
    """
    if "site" in cohort.obs:
        return cohort
    types = column_of(cohort, column)
    unknown = types[~types.isin(SITE_OF)]
    if len(unknown) == len(types):
        note_transform(cohort, f"each class of '{column}' taken for a site: no column 'site', no TCGA types")
        cohort.obs["site"] = types.astype(str).astype("category")
        return cohort
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


def parse_barcodes(ids: Iterable[str]) -> pd.DataFrame:
    """The fields of barcodes such as ``TCGA-3X-AAV9-01A-72R-A41I-07``, which may be cut behind any of them.

    Dots, as R writes them, and small letters, as clinical files have them, are understood.

    Returns
    -------
    table indexed by the ids as given, with the columns `FIELDS`: `patient` (``TCGA-3X-AAV9``), `type_code` (``01``),
    `sample_type` (GDC's words for it), `tissue` (a categorical: tumour for the codes 01 to 09 and 40, normal for 10 to
    19, other), `vial` (``A``), `portion` (``72``), `analyte` (``R``), `plate` (``A41I``) and `centre` (``07``).
    A field that no barcode reaches has no column; where only some do, it is missing in the others.

    Raises
    ------
    CohortError : an id is no barcode of TCGA or TARGET; the first is named
    """
    ids = pd.Index(ids, dtype=object)
    matches = [BARCODE.fullmatch(str(barcode).upper().replace(".", "-")) for barcode in ids]
    unknown = [barcode for barcode, match in zip(ids, matches, strict=True) if match is None]
    if unknown:
        raise CohortError(
            f"{len(unknown)} of {len(ids)} sample ids are no TCGA barcodes, the first is '{unknown[0]}'; expected ids "
            f"like TCGA-3X-AAV9-01A-72R-A41I-07, or such a one cut behind any of its fields."
        )
    table = pd.DataFrame([match.groupdict() for match in matches], ids, dtype=object)
    codes = table["type_code"]
    table["sample_type"] = codes.map(lambda code: code and SAMPLE_TYPES.get(code, f"type {code}"))
    table["tissue"] = pd.Categorical(codes.map(_tissue), ["tumour", "normal", "other"]).remove_unused_categories()
    return table[[field for field in FIELDS if table[field].notna().any()]]


def _tissue(code: str | None) -> str | None:
    if code is None:
        return None
    return "tumour" if code < "10" or code == "40" else "normal" if code < "20" else "other"


def one_per_sample(ids: Iterable[str]) -> np.ndarray:
    """Which aliquots to keep, (ids,) bool: one for each patient and sample type, whatever their order.

    The rule for several: the first vial (A before B: many B vials are formalin-fixed), then the analyte H before R
    before T, then the last plate, then the last portion. The order of analytes, and later before earlier, follow the
    replicate filter that the Broad Institute's Firehose documents; vials first is our choice. Ids that are equal in all
    of these are resolved by their order as text, the last one kept.
    """
    ids = pd.Index(ids, dtype=object)
    table = parse_barcodes(ids).reindex(columns=FIELDS).astype(object).fillna("").assign(barcode=ids.astype(str))
    table = table.assign(number=np.arange(len(ids)), earlier_vial=table["vial"].map(lambda vial: -ord(vial or "A")))
    table["preferred"] = table["analyte"].map({"H": 3, "R": 2, "": 2, "T": 1}).fillna(0)
    ranked = table.sort_values(["earlier_vial", "preferred", "plate", "portion", "barcode"], kind="stable")
    kept = ranked.drop_duplicates(["patient", "type_code"], keep="last")["number"]
    return np.isin(np.arange(len(ids)), kept)


def kept_aliquots(ids: Iterable[str], duplicates: str, left_out: dict[str, int]) -> np.ndarray:
    """The mask of `one_per_sample`, or everything for ``duplicates="keep"``; what goes is counted in `left_out`.

    Raises
    ------
    CohortError : `duplicates` is neither ``one`` nor ``keep``, or an id is no barcode
    """
    if duplicates not in ("one", "keep"):
        raise CohortError(f"duplicates={duplicates!r} is not known; expected one (a patient and sample type) or keep.")
    kept = one_per_sample(ids) if duplicates == "one" else np.ones(len(pd.Index(ids)), dtype=bool)
    left_out["further aliquots of a patient and sample type (first vial, last plate kept)"] = int((~kept).sum())
    return kept


def with_survival(obs: pd.DataFrame, dead: pd.Series, days: pd.Series) -> pd.DataFrame:
    """`obs` with `vital` (categorical: dead, alive) and `os_days`, given by patient; each missing where unknown.

    Parameters
    ----------
    obs : samples, with a column `patient`
    dead : patient -> 1 or True for dead, 0 or False for alive
    days : patient -> days from diagnosis to death or to the last that was heard
    """
    vital = obs["patient"].map(dead.map({1: "dead", 0: "alive"}))
    return obs.assign(vital=pd.Categorical(vital, VITAL), os_days=obs["patient"].map(days).astype(float))
