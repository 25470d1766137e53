"""VASARI readings of brain MRI: what neuroradiologists wrote of TCGA-GBM scans, as the six binary traits of study 04.

Smedley et al. 2020 used the readings of one neuroradiologist, of which the authors released 20 patients. The Cancer
Imaging Archive (TCIA) has those of several readers, one row a reader and patient, in the codes of the VASARI guide.
"""

from __future__ import annotations

import itertools
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from statsmodels.stats.inter_rater import cohens_kappa

from gexlib.cohort import CohortError
from gexlib.files import sha256_of
from gexlib.sources.matrix import TCGA, read_text
from gexlib.words import nearest


class Trait(NamedTuple):
    """One trait: the authors' column, the two classes, and the other raw values that mean each or nothing."""

    name: str
    column: str
    negative: str
    positive: str
    negative_values: tuple[str, ...]
    positive_values: tuple[str, ...]
    missing_codes: tuple[str, ...] = ()


# A share of the lesion, cut at a third. Codes: 1 n/a, 2 none, 3 <5 %, 4 6-33 %, 5 34-67 %, 6 68-95 %, 7 >95 %, 8 all,
# 9 indeterminate
CUT_AT_A_THIRD = (
    "Less than 1/3", "More than 1/3", ("Minimal", "2", "3", "4"),
    ("Between 1/3 and 2/3", "More than 2/3", "5", "6", "7", "8"), ("1", "9"),
)  # fmt: skip
# The positive class is the one that the published encoding made 1, by the alphabet; its plot labels say the opposite.
TRAITS = {
    "f5": Trait("enhancing", "f5.proportion.enhancing", *CUT_AT_A_THIRD),
    "f6": Trait("nCET", "f6.proportion.ncet", *CUT_AT_A_THIRD),
    "f7": Trait("necrosis", "f7.proportion.necrosis", *CUT_AT_A_THIRD),
    "f14": Trait("edema", "f14.proportion.edema", *CUT_AT_A_THIRD),
    "f9": Trait(
        "multifocal", "f9.multifocal.or.multicentric", "focal", "non-focal", ("1",),
        ("Multifocal or Multicentric", "Multifocal", "Multicentric", "Gliomatosis", "2", "3", "4"),
    ),
    "f10": Trait(
        "infiltrative", "f10.t1.flair.ratio", "expansive", "infiltrative", ("expansive (T1~FLAIR)", "1"),
        ("mixed (T1 less than FLAIR)", "infiltrative (T1 much smaller than FLAIR)", "mixed", "2", "3"),
    ),
}  # fmt: skip
MISSING = ("", "na", "n/a", "nan", "indeterminate")
# As letters and digits; of the patients' columns the first wins
PATIENT_COLUMNS = ["patient", "patientid", "subject", "subjectid", "ptid", "caseid", "sample", "sampleid", "id"]
READER_COLUMNS = ["reader", "readerid", "radiologist", "radiologistid", "rater", "observer"]


def read_vasari(path: str | Path) -> pd.DataFrame:
    """The readings of a VASARI sheet as they are written, one row a patient and reader.

    Two forms are understood: the authors' (one row a patient; words in columns such as ``f5.proportion.enhancing``)
    and TCIA's (one row a reader and patient; codes in columns F1 to F30). TCIA's sheet was not at hand: the columns
    ``Sample`` and ``Radiologist`` are known from public code that reads one, and like spellings are accepted. Assumed:
    F9 code 1, n/a in the form, means one focus, for which the form has no other word. As in the paper's section 2,
    scans that a column ``scan.type`` does not call pre-operative are left out; ``attrs["left_out"]`` counts them.

    Parameters
    ----------
    path : text with tabs, commas or semicolons, gzipped or not; .xls or .xlsx where pandas has a package for it

    Returns
    -------
    DataFrame with columns patient (TCGA barcodes cut to 12 characters), reader, and those of f5, f6, f7, f14, f9, f10
    that the sheet has, as text, empty where nothing is written

    Raises
    ------
    CohortError : unreadable or empty, no column of patients or traits, two of one trait, a reader twice for a patient
    """
    table = _sheet(path)
    plain = {re.sub(r"[\W_]", "", column).lower(): column for column in table}
    patient, reader = (
        next((plain[name] for name in names if name in plain), None) for names in (PATIENT_COLUMNS, READER_COLUMNS)
    )
    if patient is None:
        raise CohortError(
            f"{path}: no column of patients among {', '.join(table.columns[:8])}; name one 'patient', 'subject' or "
            f"'sample'."
        )
    readings = pd.DataFrame({"patient": table[patient].map(_patient), "reader": table[reader] if reader else "1"})
    for short, trait in TRAITS.items():
        title = re.sub(r"[\W_]", "", trait.column.split(".", 1)[1])
        alike = [plain[name] for name in plain if re.fullmatch(rf"f0?{short[1:]}(\D.*)?|{title}", name)]
        if len(alike) > 1:
            raise CohortError(f"{path}: columns '{alike[0]}' and '{alike[1]}' both are VASARI {short}; keep one.")
        if alike:
            readings[short] = table[alike[0]].map(_word)
    if readings.shape[1] == 2:
        raise CohortError(f"{path}: no column of a VASARI trait; expected {_column_names()}, or F5, F6, ….")
    before = pd.Series(True, table.index)
    if "scantype" in plain:
        before = table[plain["scantype"]].str.strip().str.lower().isin(["pre-operative", "preoperative", "pre-op", ""])
    readings = _checked(readings[before], path)
    readings.attrs["left_out"] = {"scans that are not pre-operative": int((~before).sum())}
    return readings


def readings_of(obs: pd.DataFrame) -> pd.DataFrame:
    """The readings in a samples table, in the form of `read_vasari`; columns ``….reader2`` are those of reader 2."""
    suffixes = obs.columns.astype(str).str.extract(r"\.reader(\d+)$")[0].dropna().unique()
    parts = [_raw(obs, reader) for reader in ("1", *sorted(suffixes, key=int))]
    readings = pd.concat([part for part in parts if part.shape[1] > 2] or parts[:1]).drop_duplicates()
    if readings.shape[1] == 2:
        raise CohortError(f"the samples table has no VASARI trait; expected columns {_column_names()}.")
    return _checked(readings.fillna(""), "the samples table")


def binarise(readings: pd.DataFrame) -> pd.DataFrame:
    """The readings with each trait as a categorical, negative class first; NaN for n/a, indeterminate, empty cells.

    The cut is the paper's: shares at a third, focal or not, and mixed T1/FLAIR ratios counted as infiltrative.

    Raises
    ------
    CohortError : a value that is none of the trait's
    """
    binary = readings.copy()
    for short in readings.columns.intersection(list(TRAITS)):
        trait = TRAITS[short]
        known = {word: trait.negative for word in (trait.negative, *trait.negative_values)}
        known |= {word: trait.positive for word in (trait.positive, *trait.positive_values)}
        words = readings[short].map(_word).astype(object)
        classes = words.str.lower().map({word.lower(): meaning for word, meaning in known.items()})
        unknown = classes.isna() & ~words.str.lower().isin([*MISSING, *trait.missing_codes])
        if unknown.any():
            row = readings[unknown].iloc[0]
            raise CohortError(
                f"column {short} ({trait.column}): '{row[short]}' of patient '{row['patient']}', reader "
                f"'{row['reader']}', is no value of it ({nearest(row[short], known)}); correct the cell, or empty it "
                f"where the trait was not read."
            )
        binary[short] = pd.Categorical(classes, [trait.negative, trait.positive])
    return binary


def consensus(readings: pd.DataFrame) -> pd.DataFrame:
    """What most readers say of each patient: the traits as `binarise` gives them, index patient.

    Readers who left a trait open do not vote; a tie is NaN. ``attrs["ties"]`` counts the ties of each trait.
    """
    shares = _codes(readings).groupby("patient").mean()
    agreed = pd.DataFrame(index=shares.index)
    for short, share in shares.items():
        votes = np.select([share > 0.5, share < 0.5], [1, 0], -1)
        agreed[short] = pd.Categorical.from_codes(votes, [TRAITS[short].negative, TRAITS[short].positive])
    agreed.attrs["ties"] = {short: int(ties) for short, ties in (shares == 0.5).sum().items()}
    return agreed


def agreement(readings: pd.DataFrame) -> pd.DataFrame:
    """Cohen's kappa of every two readers on each binary trait, over the patients whom both read.

    Returns
    -------
    DataFrame with columns trait, first, second, n, agree (share), kappa, low, high. The 95 % interval is asymptotic:
    rough below some 30 patients, and without width where all agree. NaN where both give one class to everybody.

    Raises
    ------
    CohortError : fewer than two readers
    """
    readers = sorted(readings["reader"].unique())
    if len(readers) < 2:
        raise CohortError(f"agreement needs two readers or more; the readings are of {readers or 'nobody'}.")
    rows = []
    for short, codes in _codes(readings).items():
        for first, second in itertools.combinations(readers, 2):
            both = codes.unstack()[[first, second]].dropna().to_numpy(int)
            counts = np.bincount(2 * both[:, 0] + both[:, 1], minlength=4).reshape(2, 2)
            row = {"trait": short, "first": first, "second": second, "n": len(both)}
            row["agree"] = np.trace(counts) / len(both) if len(both) else np.nan
            if len(np.unique(both)) == 2:
                found = cohens_kappa(counts)
                row |= {"kappa": found.kappa, "low": max(found.kappa_low, -1), "high": min(found.kappa_upp, 1)}
            rows.append(row)
    return pd.DataFrame(rows, columns=["trait", "first", "second", "n", "agree", "kappa", "low", "high"])


def traits_of(obs: pd.DataFrame, reader: int = 1) -> pd.DataFrame:
    """The binary traits of a samples table that carries the authors' columns, raw or binary; index as that of `obs`.

    Parameters
    ----------
    obs : the samples table of a cohort; traits whose column it lacks are left out
    reader : 1 for the columns themselves, 2 for those with the suffix ``.reader2``, …

    Raises
    ------
    CohortError : it has none of the columns, or a value is none of the trait's
    """
    raw = _raw(obs, str(reader))
    if raw.shape[1] == 2:
        raise CohortError(
            f"the samples table has no VASARI trait; expected at least one of the columns "
            f"{_column_names('' if reader == 1 else f'.reader{reader}')}: join readings with add_traits."
        )
    return binarise(raw).drop(columns=["patient", "reader"])


def add_traits(cohort: anndata.AnnData, path: str | Path) -> anndata.AnnData:
    """Write the consensus of a VASARI sheet into the samples table, under the authors' columns, by ``obs["patient"]``.

    Provenance says how many patients matched and how many ties were left open; `traits_of` then reads the columns.

    Raises
    ------
    CohortError : no patient of the cohort is in the sheet, or what `read_vasari` and `binarise` raise
    """
    readings = read_vasari(path)
    agreed, patients = consensus(readings), pd.Index(cohort.obs["patient"].map(_patient))
    matched, ties = patients[patients.isin(agreed.index)].nunique(), sum(agreed.attrs["ties"].values())
    if not matched:
        raise CohortError(
            f"{path}: none of its {len(agreed)} patients (first '{agreed.index[0]}') is among the "
            f"{patients.nunique()} of {cohort.uns.get('cohort', 'the cohort')} (first '{patients[0]}'); expected the "
            f"same ids in both, such as TCGA-02-0047."
        )
    for short, calls in agreed.reindex(patients).set_axis(cohort.obs_names).items():
        cohort.obs[TRAITS[short].column] = calls
    provenance, name = cohort.uns.setdefault("provenance", {}), Path(path).name
    note = (
        f"VASARI readings of {matched} of {patients.nunique()} patients joined from {name} ({len(agreed)} patients, "
        f"{readings['reader'].nunique()} readers, {ties} ties left open)"
    )
    for key, value in (("transforms", note), ("files", name), ("sha256", sha256_of(path))):
        provenance[key] = [*provenance.get(key, []), value]
    return cohort


def _sheet(path: str | Path) -> pd.DataFrame:
    """The cells of a sheet as text, with empty cells empty."""
    try:
        if Path(path).suffix.lower() in (".xls", ".xlsx"):
            table = pd.read_excel(path, dtype=str, keep_default_na=False)
        else:
            text = read_text(path)
            header = text.split(b"\n", 1)[0]
            mark = max(("\t", ";", ","), key=lambda mark: header.count(mark.encode()))
            table = pd.read_csv(BytesIO(text), sep=mark, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ImportError as error:
        raise CohortError(f"{path}: pandas reads this form with a package that is not here; save it as CSV.") from error
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except (OSError, KeyError, UnicodeError, zipfile.BadZipFile, pd.errors.ParserError) as error:
        raise CohortError(f"{path}: cannot be read ({str(error).strip()}); save it as CSV in UTF-8.") from error
    if table.empty:
        raise CohortError(f"{path}: there is no row of readings; expected a header and a row for each patient.")
    if not isinstance(table.index, pd.RangeIndex):
        raise CohortError(f"{path}: the rows have more fields than the header; give every column a name.")
    return table.rename(columns=str)


def _raw(obs: pd.DataFrame, reader: str) -> pd.DataFrame:
    """patient, reader and the raw traits of one reader in a samples table."""
    suffix = "" if reader == "1" else f".reader{reader}"
    patients = obs["patient"] if "patient" in obs else obs.index.to_series()
    raw = pd.DataFrame({"patient": patients.astype(str), "reader": reader}, index=obs.index)
    for short, trait in TRAITS.items():
        if trait.column + suffix in obs:
            raw[short] = obs[trait.column + suffix].astype(object).map(_word)
    return raw


def _checked(readings: pd.DataFrame, where: object) -> pd.DataFrame:
    readings = readings.assign(reader=readings["reader"].map(_word))
    for column in ("patient", "reader"):
        if (readings[column] == "").any():
            row = 1 + (readings[column] == "").to_numpy().argmax()
            raise CohortError(f"{where}: row {row} below the header names no {column}; name one or remove the row.")
    twice = readings[readings.duplicated(["patient", "reader"])]
    if len(twice):
        raise CohortError(
            f"{where}: patient '{twice.iloc[0]['patient']}' occurs twice for reader '{twice.iloc[0]['reader']}'; keep "
            f"one reading, that of the pre-operative scan."
        )
    return readings.reset_index(drop=True)


def _codes(readings: pd.DataFrame) -> pd.DataFrame:
    """The binary traits as 0, 1 and NaN, index patient and reader."""
    binary = binarise(readings).set_index(["patient", "reader"])
    return binary.apply(lambda calls: calls.cat.codes.astype(float).where(calls.notna()))


def _word(value: object) -> str:
    """A cell as text: whole numbers without their decimals, missing ones empty."""
    return "" if pd.isna(value) else re.sub(r"^(\d+)\.0+$", r"\1", str(value).strip())


def _patient(value: object) -> str:
    """A TCGA barcode cut to its patient, any other id as it is."""
    word = _word(value)
    return word[:12].replace(".", "-").upper() if TCGA.match(word.upper()) else word


def _column_names(suffix: str = "") -> str:
    return ", ".join(trait.column + suffix for trait in TRAITS.values())
