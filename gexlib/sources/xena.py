"""UCSC Xena's frozen copies of TCGA: one table of genes x samples a data set, with tables of samples beside it.

Xena keeps expression as logarithms. Those of log2(x + 1) are taken as they are; log2(x + 0.001) is undone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from gexlib.cohort import CohortError, make_cohort
from gexlib.fetch import TCGA_LICENCE, FetchError, NotThereError, cached, download
from gexlib.files import data_folder, sha256_of
from gexlib.sources.matrix import COPIES_ON_Y, gene_table, typed
from gexlib.sources.tcga import SITE_OF, kept_aliquots, parse_barcodes, with_survival
from gexlib.sources.wide import read_wide
from gexlib.words import nearest

GDC_HUB = "https://gdc-hub.s3.us-east-1.amazonaws.com/download"
TCGA_HUB = "https://tcga.xenahubs.net/download"
TCGA_STORE = "https://tcga-xena-hub.s3.us-east-1.amazonaws.com/download"  # where the hub's files lie
TOIL_HUB = "https://toil-xena-hub.s3.us-east-1.amazonaws.com/download"
PANCAN_ATLAS = "https://tcga-pancan-atlas-hub.s3.us-east-1.amazonaws.com/download"
V22, V23 = "gencode.v22.annotation.gene.probeMap", "gencode.v23.annotation.gene.probemap"
V36 = "gencode.v36.annotation.gtf.gene.probemap"
HTSEQ = "GDC before release 32 (March 2022): HTSeq, GENCODE v22; frozen by Xena, GDC no longer has it"
STAR = "GDC from release 32 on: STAR, GENCODE v36; Xena's copy"
UNITS = {  # data set of the GDC hub -> the unit of its values
    "htseq_fpkm": "log2(FPKM+1)",
    "htseq_fpkm-uq": "log2(FPKM-UQ+1)",
    "htseq_counts": "log2(counts+1)",
    "star_fpkm": "log2(FPKM+1)",
    "star_fpkm-uq": "log2(FPKM-UQ+1)",
    "star_counts": "log2(counts+1)",
    "star_tpm": "log2(TPM+1)",
}
TOIL = {"tcga_RSEM_gene_fpkm": "FPKM", "tcga_RSEM_gene_tpm": "TPM"}  # log2(x + 0.001) of these
NO_GENE = re.compile(rf"__\w+|N_\w+|{COPIES_ON_Y.pattern}")
SAMPLE_ID = ("sample", "sampleID", "submitter_id.samples", "id")  # the last: of a probe map; the first found wins
PATIENT = r"^(TCGA-\w\w-\w{4}|TARGET-\d\d-\w{6})"
FORMS = (
    "expected xena:GDC-PANCAN, xena:TCGA-BRCA, xena:TCGA-BRCA.star_tpm, xena:TCGA-GBM-U133A, xena:TCGA-BRCA-HiSeqV2 "
    "or xena:TOIL"
)


class DataSet(NamedTuple):
    """One data set of a Xena hub: where its files are and what their values mean."""

    matrix: tuple[str, ...]  # addresses, tried in this order
    unit: str
    release: str
    cohort: str = ""  # TCGA's study abbreviation, where there is one
    offset: float = 1.0  # the values are log2(x + offset)
    tables: tuple[tuple[str, ...], ...] = ()  # of samples; each may be absent
    probemap: str = ""
    room: int = 60_700  # genes, and some more


def data_set(name: str) -> DataSet:
    """What a name such as ``xena:TCGA-BRCA`` stands for.

    Raises
    ------
    FetchError : no data set of that form, or no project of TCGA
    """
    hub, project, kind, tail = _parts(name)
    if hub == "toil":
        tables = (
            (f"{TOIL_HUB}/TCGA_phenotype_denseDataOnlyDownload.tsv.gz",),
            (f"{PANCAN_ATLAS}/Survival_SupplementalTable_S1_20171025_xena_sp",),
        )
        probemap, unit = f"{TOIL_HUB}/probeMap%2F{V23}", f"log2({TOIL[kind]}+1)"
        return DataSet(
            (f"{TOIL_HUB}/{kind}.gz",), unit, "Xena's Toil hub: RSEM, GENCODE v23", "", 0.001, tables, probemap
        )
    if hub == "tcga":
        code = project.removeprefix("TCGA-")
        array = tail == "U133A"
        file = "HT_HG-U133A" if array else "HiSeqV2"
        unit = "log2 RMA" if array else "log2(RSEM normalised + 1)"
        matrix, clinical = _tcga(code, f"{file}.gz"), _tcga(code, f"{code}_clinicalMatrix")
        survival = (f"{TCGA_STORE}/survival%2F{code}_survival.txt",)
        return DataSet(matrix, unit, "Xena's TCGA hub, legacy level 3", code, tables=(clinical, survival), room=20_600)
    old = kind.startswith("htseq")
    matrix = (f"{GDC_HUB}/{project}.{kind}.tsv.gz",)
    table = "basic_phenotype" if project == "GDC-PANCAN" else "GDC_phenotype" if old else "clinical"
    described = (f"{GDC_HUB}/{project}.{table}.tsv.gz",)
    survival = (f"{GDC_HUB}/{project}.survival.tsv.gz", f"{GDC_HUB}/{project}.survival.tsv")
    code = "" if project == "GDC-PANCAN" else project.removeprefix("TCGA-")
    probemap = f"{GDC_HUB}/{V22 if old else V36}"
    return DataSet(matrix, UNITS[kind], HTSEQ if old else STAR, code, 1.0, (described, survival), probemap)


def fetch_xena(name: str) -> list[Path]:
    """Download the matrix of ``xena:…``, and of its tables of samples and genes those that the hub has."""
    found, folder = data_set(name), _folder(name)
    paths = [_first_there(found.matrix, folder)]
    for addresses in found.tables:
        try:
            paths.append(_first_there(addresses, folder))
        except NotThereError:
            continue
    if found.probemap:
        paths.append(_first_there((found.probemap,), folder.parent / "probemaps"))
    return paths


def load(name: str, samples: str | None = None, *, duplicates: str = "one", program: str = "TCGA") -> anndata.AnnData:
    """Open a data set that `fetch` has placed as a cohort of samples x genes.

    Parameters
    ----------
    name : ``xena:GDC-PANCAN`` (htseq_fpkm-uq), ``xena:TCGA-BRCA`` (htseq_fpkm), either with another data set behind a
        dot, such as ``xena:TCGA-BRCA.star_tpm``; ``xena:TCGA-GBM-U133A``; ``xena:TCGA-BRCA-HiSeqV2``; ``xena:TOIL``
    duplicates : ``one`` keeps one aliquot a patient and sample type (`tcga.one_per_sample`), ``keep`` all of them
    program : ``TCGA`` leaves TARGET's samples of GDC-PANCAN out, ``all`` keeps them

    Returns
    -------
    anndata.AnnData; `obs` has the fields of the barcode (`tcga.parse_barcodes`), `cohort`, `vital` and `os_days` where
    the hub's tables give them, and the columns of those tables; `var` the id in the file and the `symbol` of an
    Ensembl id

    Raises
    ------
    CohortError : nothing is cached, a file has changed, or the data break the contract
    """
    if samples:
        raise CohortError(f"{name}: Xena describes its own samples; leave samples={samples!r} out.")
    if program not in ("TCGA", "all"):
        raise CohortError(f"{name}: program={program!r} is not known ({nearest(program, ('TCGA', 'all'))}).")
    found, folder, left_out = data_set(name), _folder(name), {}
    path = cached(name, _place_of(found.matrix, folder))

    def keep(ids: pd.Index) -> np.ndarray:
        wanted = ids.str.startswith("TCGA") | (program == "all")
        left_out["samples of other programmes than TCGA"] = int((~wanted).sum())
        wanted[wanted] = kept_aliquots(ids[wanted], duplicates, left_out)
        return wanted

    ids, genes, X, skipped = read_wide(path, keep, NO_GENE, room=found.room)
    left_out["rows that are no gene, or the copy on Y of one"] = skipped
    transforms = [f"values as Xena keeps them, {found.unit}"]
    if found.offset != 1.0:
        np.exp2(X, out=X)
        X -= np.float32(found.offset)
        np.maximum(X, 0, out=X)
        X += np.float32(1)
        np.log2(X, out=X)
        transforms = [f"log2(x + {found.offset:g}) of the file undone", found.unit]
    files = {path.name: sha256_of(path)}
    places = [place for addresses in found.tables if (place := _place_of(addresses, folder)).is_file()]
    obs = parse_barcodes(ids).assign(cohort=found.cohort or None)
    for place in places:
        files[place.name] = sha256_of(place)
        obs = _joined(obs, _table(place), place.name, left_out, transforms)
    var = gene_table(genes)
    if found.probemap:
        probemap = cached(name, _place_of((found.probemap,), folder.parent / "probemaps"))
        files[probemap.name] = sha256_of(probemap)
        var["symbol"] = _table(probemap)["gene"].reindex(genes).fillna("").to_numpy()
    return make_cohort(
        X, obs.dropna(axis=1, how="all"), var, name=name, unit=found.unit, source=f"UCSC Xena {path.name}",
        release=found.release, licence=TCGA_LICENCE, files=files,
        transforms=[*transforms, "patient and sample type from the TCGA barcode"], left_out=left_out,
    )  # fmt: skip


def _parts(name: str) -> tuple[str, str, str, str]:
    """The hub, the project, the data set and the tail of a name."""
    found = re.fullmatch(r"xena:(GDC-PANCAN|TCGA-[A-Z]+|TOIL)(?:-(U133A|HiSeqV2))?(?:\.([\w-]+))?", str(name))
    project, tail, kind = found.groups() if found else ("", "", "")
    if found is None or (tail and (kind or not project.startswith("TCGA-"))):
        raise FetchError(f"'{name}' is no data set of Xena; {FORMS}.")
    if project.startswith("TCGA-") and project.removeprefix("TCGA-") not in SITE_OF:
        near = nearest(project, (f"TCGA-{code}" for code in SITE_OF))
        raise FetchError(f"{name}: '{project}' is no project of TCGA ({near}).")
    if tail:
        return "tcga", project, "", tail
    hub, known = ("toil", [*TOIL]) if project == "TOIL" else ("gdc", [*UNITS])
    kind = kind or {"TOIL": known[0], "GDC-PANCAN": "htseq_fpkm-uq"}.get(project, "htseq_fpkm")
    if kind not in known:
        raise FetchError(f"{name}: there is no data set '{kind}' ({nearest(kind, known)}).")
    return hub, project, kind, ""


def _tcga(code: str, file: str) -> tuple[str, str]:
    return f"{TCGA_HUB}/TCGA.{code}.sampleMap/{file}", f"{TCGA_STORE}/TCGA.{code}.sampleMap%2F{file}"


def _folder(name: str) -> Path:
    return data_folder() / "xena" / str(name).removeprefix("xena:")


def _places_of(addresses: tuple[str, ...], folder: Path) -> dict[str, Path]:
    """Address -> where its file is kept; only the one that is there already, if one is."""
    places = {address: folder / address.rpartition("/")[2].rpartition("%2F")[2] for address in addresses}
    return {address: place for address, place in places.items() if place.is_file()} or places


def _place_of(addresses: tuple[str, ...], folder: Path) -> Path:
    return next(iter(_places_of(addresses, folder).values()))


def _first_there(addresses: tuple[str, ...], folder: Path) -> Path:
    """The file from the first of its addresses that has it, or the one that is placed already."""
    *others, last = _places_of(addresses, folder).items()
    for address, place in others:
        try:
            return download(address, place)
        except NotThereError:
            continue
    return download(*last)


def _table(path: Path) -> pd.DataFrame:
    """A table of samples or probes as text, indexed by id; of rows with one id the first."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, na_values=["[Not Available]", "[Not Applicable]", "--"])
    except (ValueError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise CohortError(f"{path}: cannot be read as a table ({reason}); remove it and fetch it again.") from None
    key = next((column for column in SAMPLE_ID if column in table), table.columns[0])
    table = table.dropna(subset=key).set_index(key)
    return table[~table.index.duplicated()]


def _joined(obs: pd.DataFrame, table: pd.DataFrame, file: str, left_out: dict, transforms: list[str]) -> pd.DataFrame:
    """`obs` with the columns of a table of samples; survival and project also under the names that notebooks use."""
    left_out[f"rows of {file} without expression"] = int((~table.index.isin(obs.index)).sum())
    unknown = int((~obs.index.isin(table.index)).sum())
    transforms += [f"{file} joined by sample id"] + [f"{unknown} samples are not in {file}"] * (unknown > 0)
    if {"OS", "OS.time"} <= set(table):
        known = table.assign(patient=table.index.str.extract(PATIENT, expand=False)).dropna(subset=["patient", "OS"])
        known = known.drop_duplicates("patient").set_index("patient")[["OS", "OS.time"]].apply(pd.to_numeric)
        obs = with_survival(obs, known["OS"], known["OS.time"])
    table = table.reindex(obs.index)
    project = next((table[column] for column in ("project_id", "cancer type abbreviation") if column in table), None)
    if project is not None and obs["cohort"].isna().all():
        obs = obs.assign(cohort=project.str.removeprefix("TCGA-"))
    for column in table.dropna(axis=1, how="all"):
        plain = str(column).replace("/", "_")
        obs[f"{plain}_in_file" if plain in obs else plain] = typed(table[column])
    return obs
