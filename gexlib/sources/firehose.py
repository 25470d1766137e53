"""Firehose, the Broad Institute's run over TCGA of 28 January 2016: RSEM genes normalised, and its clinical tables.

The formats are those of the public archives: an expression file with two header rows and genes named SYMBOL|ENTREZ, on
a linear scale, and a clinical file with fields in rows and patients in columns.
"""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from gexlib.cohort import CohortError, make_cohort
from gexlib.fetch import TCGA_LICENCE, FetchError, NotThereError, cached, download, forget, unpack
from gexlib.files import data_folder, sha256_of
from gexlib.sources.matrix import gene_table, typed
from gexlib.sources.tcga import SITE_OF, kept_aliquots, parse_barcodes, with_survival
from gexlib.sources.wide import opened, read_wide
from gexlib.words import nearest

GDAC = "http://gdac.broadinstitute.org/runs/stddata__2016_01_28/data"  # it answers on http only
RUN, DATE = "Firehose stddata run of 2016-01-28", "20160128"
RNASEQ = "Merge_rnaseqv2__illuminahiseq_rnaseqv2__unc_edu__Level_3__RSEM_genes_normalized__data.Level_3"
CLINICAL = "Merge_Clinical.Level_1"
EXPRESSION_FILE = re.compile(r".+RSEM_genes_normalized__data\.data\.txt")
CLINICAL_FILE = re.compile(r".+\.merged_only_clinical_clin_format\.txt")
COMBINED = ("COADREAD", "GBMLGG", "KIPAN", "STES")  # cohorts of Firehose that join several of TCGA
UNIT = "log2(RSEM normalised + 1)"
BARCODE_ROW = "patient.bcr_patient_barcode"
FOLLOW_UP = re.compile(
    r"patient\.(?:follow_ups\.follow_up(?:-\d+)?\.)?(vital_status|days_to_death|days_to_last_followup)"
)
FACTS = {  # rows of the clinical file -> columns of obs
    "admin.disease_code": "cohort",
    "patient.gender": "gender",
    "patient.age_at_initial_pathologic_diagnosis": "age",
    "patient.race": "race",
    "patient.histological_type": "histological_type",
    "patient.stage_event.pathologic_stage": "pathologic_stage",
    "patient.neoplasm_histologic_grade": "grade",
}


def fetch_firehose(name: str) -> list[Path]:
    """Download the archives of ``firehose:KIPAN`` and take out the expression and, where there is one, clinical file.

    Firehose keeps an md5 beside each archive; where it can be had, the archive must have it.

    Raises
    ------
    FetchError : an unknown cohort, a download that did not work, or an archive that is not to be trusted
    """
    cohort = _cohort_of(name)
    folder, paths = _folder(cohort), []
    for task, wanted in ((RNASEQ, EXPRESSION_FILE), (CLINICAL, CLINICAL_FILE)):
        file = f"gdac.broadinstitute.org_{cohort}.{task}.{DATE}00.0.0.tar.gz"
        url = f"{GDAC}/{cohort}/{DATE}/{file}"
        try:
            md5 = "" if (folder / file).is_file() else _md5(url, folder / f"{file}.md5")
            paths.append(unpack(download(url, folder / file, md5=md5), wanted))
        except NotThereError:
            if wanted is EXPRESSION_FILE:
                raise
    cached(name, paths[0])
    return paths


def load(
    name: str, samples: str | None = None, *, clinical: str | None = None, duplicates: str = "one"
) -> anndata.AnnData:
    """Open a cohort of Firehose as samples x genes in log2(RSEM normalised + 1).

    The 29 genes without a symbol are kept under their whole name, ``?|ENTREZ``, as are the two SLC35E2; every other
    gene goes by its symbol, and `var["entrez"]` has the number of all.

    Parameters
    ----------
    name : ``firehose:KIPAN``, which `fetch` has placed, or the path of an expression file, gzipped or not
    clinical : path of a ``merged_only_clinical_clin_format.txt``; else the one beside the expression file, if any
    duplicates : ``one`` keeps one aliquot a patient and sample type (`tcga.one_per_sample`), ``keep`` all of them

    Returns
    -------
    anndata.AnnData; `obs` has the fields of the barcode (`tcga.parse_barcodes`) and, with a clinical file, the columns
    of `FACTS`, `vital` and `os_days` (`read_clinical`)

    Raises
    ------
    CohortError : nothing is cached, a file cannot be read, or the data break the contract
    """
    if samples:
        raise CohortError(
            f"{name}: Firehose's barcodes describe the samples; for its clinical file pass clinical=PATH."
        )
    path, left_out = _expression_file(name), {}
    with opened(path) as stream:
        first, second = (stream.readline().decode("utf-8", "replace").rstrip("\r\n").split("\t") for _ in range(2))
    kinds = set(second[1:])
    if first[0] != "Hybridization REF" or kinds != {"normalized_count"}:
        raise CohortError(
            f"{path}: its second row says {', '.join(sorted(kinds)[:4]) or 'nothing'}; expected normalized_count below "
            f"'Hybridization REF' and the barcodes: take the file RSEM_genes_normalized__data.data.txt."
        )
    ids, genes, X, _ = read_wide(path, lambda ids: kept_aliquots(ids, duplicates, left_out), headers=2, room=20_600)
    if X.min() < 0:
        raise CohortError(f"{path}: holds {X.min():g}; expected RSEM values of zero or more, before any logarithm.")
    X += np.float32(1)
    np.log2(X, out=X)
    transforms = [UNIT, "patient and sample type from the TCGA barcode"]
    files = {path.name: sha256_of(path)}
    obs = parse_barcodes(ids)
    cohort = path.name.partition(".")[0]
    if cohort in SITE_OF:
        obs["cohort"] = cohort
    beside = path.with_name(f"{cohort}.merged_only_clinical_clin_format.txt")
    place = Path(clinical) if clinical else next(filter(Path.is_file, (beside, Path(f"{beside}.gz"))), None)
    if place is not None:
        obs = _with_clinical(obs, read_clinical(place), place.name, transforms)
        files[place.name] = sha256_of(place)
    nameless = int(genes.str.startswith("?|").sum())
    transforms += [f"{nameless} genes without a symbol kept as ?|ENTREZ"] * (nameless > 0)
    return make_cohort(
        X, obs, gene_table(genes), name=str(name), unit=UNIT, source=f"Broad Institute GDAC Firehose {path.name}",
        release=RUN if str(name).startswith("firehose:") else "", licence=TCGA_LICENCE,
        files=files, transforms=transforms, left_out=left_out,
    )  # fmt: skip


def read_clinical(path: str | Path) -> pd.DataFrame:
    """The facts of a clinical file of Firehose, indexed by patient.

    Returns
    -------
    table with the columns of `FACTS` that the file has, and
    `dead` : 1 where any record, of enrolment or of a follow-up, says dead; 0 where those that say something say alive
    `days` : of the dead the days to death, of the others to the last that any record heard of them

    Raises
    ------
    CohortError : the file cannot be read, or has no row of patients' barcodes
    """
    with opened(path) as stream:
        rows = [line.decode("utf-8", "replace").rstrip("\r\n").split("\t") for line in stream]
    named = {row[0]: row[1:] for row in rows if len(row) > 1}
    if BARCODE_ROW not in named:
        raise CohortError(f"{path}: has no row {BARCODE_ROW}; expected COHORT.merged_only_clinical_clin_format.txt.")
    patients = pd.Index([word.strip().upper() for word in named[BARCODE_ROW]], name="patient")
    for field, words in named.items():
        if len(words) != len(patients) and (field in FACTS or FOLLOW_UP.fullmatch(field)):
            raise CohortError(f"{path}: row '{field}' has {len(words)} values for {len(patients)} patients; is it cut?")
    table = pd.DataFrame(
        {column: named[field] for field, column in FACTS.items() if field in named}, patients, dtype=object
    )
    table = table.mask(table.isin(["NA", ""]))
    records: dict[str, list] = {"vital_status": [], "days_to_death": [], "days_to_last_followup": []}
    for field, words in named.items():
        if kind := FOLLOW_UP.fullmatch(field):
            records[kind[1]].append(words)
    said = np.array(records["vital_status"], dtype=object).reshape(-1, len(patients))
    dead, known = (said == "dead").any(axis=0), np.isin(said, ["dead", "alive"]).any(axis=0)
    table["dead"] = pd.Series(np.where(known, dead, np.nan), patients).astype(float)
    death, heard = (_largest(records[kind], patients) for kind in ("days_to_death", "days_to_last_followup"))
    table["days"] = death.where(dead, heard)
    return table[~patients.duplicated()]


def _cohort_of(name: str) -> str:
    found = re.fullmatch(r"firehose:([A-Z]+)", str(name))
    known = [*SITE_OF, *COMBINED]
    if found is None or found[1] not in known:
        raise FetchError(f"'{name}' is no cohort of Firehose ({nearest(str(name).partition(':')[2].upper(), known)}).")
    return found[1]


def _folder(cohort: str) -> Path:
    return data_folder() / "firehose" / cohort


def _md5(url: str, path: Path) -> str:
    """The md5 that Firehose keeps beside an archive; empty where it has none."""
    try:
        words = download(f"{url}.md5", path).read_text(encoding="utf-8", errors="replace").split()
    except NotThereError:
        return ""
    forget(path)
    return next((word for word in words if re.fullmatch(r"[0-9a-fA-F]{32}", word)), "")


def _expression_file(name: str) -> Path:
    """The path that `name` is, or the expression file of the cohort that it names, verified."""
    if not str(name).startswith("firehose:"):
        return Path(name)
    folder = _folder(_cohort_of(name))
    found = [path for path in folder.glob("*") if EXPRESSION_FILE.fullmatch(path.name)]
    return cached(name, found[0] if found else folder / "RSEM_genes_normalized__data.data.txt")


def _largest(rows: list[list[str]], patients: pd.Index) -> pd.Series:
    """The largest number that any of the rows has for each patient; missing where none has one."""
    numbers = pd.DataFrame(rows, columns=range(len(patients))).apply(pd.to_numeric, errors="coerce")
    return pd.Series(numbers.max().to_numpy(dtype=float), patients)


def _with_clinical(obs: pd.DataFrame, table: pd.DataFrame, file: str, transforms: list[str]) -> pd.DataFrame:
    """`obs` with the facts of each sample's patient."""
    unknown = int((~obs["patient"].isin(table.index)).sum())
    transforms.append(f"{file} joined by patient; dead is who any record, of enrolment or follow-up, says is dead")
    transforms += [f"{unknown} samples have no patient in {file}"] * (unknown > 0)
    obs = with_survival(obs, table["dead"], table["days"])
    for column in table.columns.drop(["dead", "days"]):
        words = obs["patient"].map(table[column]).rename(column)
        if column == "cohort":
            obs["cohort"] = words.str.upper().fillna(obs.get("cohort"))
        elif words.notna().any():
            obs[column] = typed(words)
    return obs
