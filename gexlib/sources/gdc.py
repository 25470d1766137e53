"""RNA-seq of NCI's Genomic Data Commons: the files that `fetch` has placed, assembled once, then opened in part.

The cache holds, below ``gdc/``, one folder a name with its manifest and its assembled cohorts, and ``files/``, which
all names share: a file of TCGA-BRCA is kept once, whether ``gdc:TCGA-BRCA`` or ``gdc:TCGA`` brought it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd

from gexlib.cohort import CohortError, make_cohort
from gexlib.fetch import FetchError
from gexlib.files import data_folder, sha256_of
from gexlib.sources.tcga import one_per_sample, parse_barcodes, with_survival
from gexlib.words import nearest

NAME = re.compile(r"gdc:(\w[\w.-]*)")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ALIVE_OR_DEAD = ["Alive", "Dead"]


def load(
    name: str,
    samples: str | None = None,
    *,
    values: str = "tpm",
    transform: str = "log2",
    genes: str | Iterable[str] = "all",
    ids: str = "ensembl",
    duplicates: str = "one",
    keep: str = "",
) -> anndata.AnnData:
    """Open the RNA-seq of a GDC project or programme as a cohort of samples x genes.

    The files are assembled at the first call, which is restarted where it was killed; afterwards only the samples and
    genes asked for are read.

    Parameters
    ----------
    name : ``gdc:TCGA-BRCA``, one project, or ``gdc:TCGA``, all projects of a programme; `gexlib.fetch` downloads them
    values : ``tpm``, ``fpkm``, ``fpkm_uq`` or ``counts`` (the unstranded ones)
    transform : ``log2`` gives log2(x + 1); ``none`` the values as in the files
    genes : ``all``, a gene type such as ``protein_coding``, or symbols and Ensembl ids: a list, joined by ``+``, or the
        path of a file with one a line. The cohort has them in the order of GDC's files
    ids : ``ensembl`` names genes by Ensembl id without version; ``symbol`` by symbol, without symbols of several genes
    duplicates : ``one`` keeps one aliquot a patient and sample type (`tcga.one_per_sample`), or outside TCGA and TARGET
        the one of a sample whose barcode sorts last, and names it by its sample; ``keep`` keeps all, by aliquot
    keep : a condition on the samples table in pandas' query language, such as ``sample_type == "Primary Tumor"``

    Returns
    -------
    anndata.AnnData; `obs` has what `samples_table` says and the counts of reads outside genes; `var` symbol, gene_type
    and id_in_file

    Raises
    ------
    CohortError : nothing is cached, a file is damaged or of another gene model, or an unknown option
    """
    from gexlib.sources.gdc_assembly import VALUES, assemble, read_part

    if samples:
        raise CohortError(f"{name}: GDC describes its own samples; leave samples={samples!r} out.")
    known = {
        "values": VALUES,
        "transform": ("log2", "none"),
        "ids": ("ensembl", "symbol"),
        "duplicates": ("one", "keep"),
    }
    for option, given in {"values": values, "transform": transform, "ids": ids, "duplicates": duplicates}.items():
        if given not in known[option]:
            raise CohortError(f"{name}: {option}={given!r} is not known ({nearest(given, known[option])}).")
    with h5py.File(assemble(name, values, transform)) as file:
        obs, var, uns = (anndata.io.read_elem(file[part]) for part in ("obs", "var", "uns"))
        past, left_out = uns["provenance"], dict(uns["provenance"]["left_out"])
        obs, rows = _chosen_samples(obs, duplicates, keep, name, left_out)
        var, columns = _chosen_genes(var, genes, ids, name, left_out)
        X = read_part(file["X"], rows, columns)
    return make_cohort(
        X, obs, var, name=name, unit=uns["unit"], source=past["source"], release=past["release"],
        licence=past["licence"], files=dict(zip(map(str, past["files"]), map(str, past["sha256"]), strict=True)),
        transforms=map(str, past["transforms"]), left_out=left_out,
    )  # fmt: skip


def manifest_path(name: str) -> Path:
    """Where the manifest of ``gdc:TCGA-BRCA`` is kept.

    Raises
    ------
    FetchError : the name is of another form
    """
    found = NAME.fullmatch(str(name))
    if found is None:
        raise FetchError(f"'{name}' is no GDC project; expected gdc:TCGA-BRCA, or gdc:TCGA for a whole programme.")
    return data_folder() / "gdc" / found[1] / "manifest.json"


def star_path(file_id: str) -> Path:
    """Where GDC's file of this UUID is kept.

    Raises
    ------
    FetchError : it is no UUID: a manifest may come from anywhere, and must not name a place outside the cache
    """
    if not UUID.fullmatch(file_id):
        raise FetchError(f"'{file_id}' is no UUID of a GDC file; remove the manifest that names it and fetch again.")
    return data_folder() / "gdc" / "files" / file_id[:2] / f"{file_id}.tsv"


def read_manifest(name: str) -> dict:
    """The manifest that `fetch` has placed: ``release``, ``filters``, and ``files`` as GDC's files endpoint gave them.

    Raises
    ------
    FetchError : there is none, or it is no whole manifest
    """
    path = manifest_path(name)
    if not path.is_file():
        raise FetchError(
            f"{name}: nothing is cached in {path.parent}; run `python -m gexlib fetch {name}` on a machine with "
            f"network (GEXLIB_DATA says where it is kept, and that folder can be copied)."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if len(manifest["files"]) == manifest["total"] > 0:
            return manifest
    except (ValueError, KeyError, TypeError):
        pass
    raise FetchError(f"{path} is no whole manifest; remove it and fetch {name} again.")


def provenance_of(name: str, manifest: dict) -> dict:
    """Source, release, licence and the manifest's sha256, in the form of `uns["provenance"]`."""
    return {
        "source": f"NCI Genomic Data Commons, {name.removeprefix('gdc:')}, STAR - Counts, open access",
        "release": str(manifest["release"]),
        "licence": "GDC open-access tier: free to use with acknowledgement, no attempt to identify participants",
        "files": ["manifest.json"],  # which has the UUID and md5 of every file
        "sha256": [sha256_of(manifest_path(name))],
    }


def samples_table(manifest: dict) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row a file, indexed by aliquot barcode and sorted by project and barcode; and what was left out, counted.

    The columns are patient, sample, aliquot, project, cohort (``BRCA``), sample_type, tissue_type, sex, age_at_index;
    vital_status, days_to_death and days_to_last_follow_up in GDC's words; vital and os_days as in every cohort; and
    the fields of the barcode, where all are of TCGA or TARGET. A file of no single case and sample is left out. The
    follow-up is the greatest of all diagnoses and follow-ups of a case: GDC's release 42 moved it from one to the
    other. A file whose aliquot is unnamed, or that shares its aliquot with another file, is named by its UUID.
    """
    rows = [row for row in map(_row, manifest["files"]) if row]
    left_out = {"files of no single case and sample": len(manifest["files"]) - len(rows)}
    if not rows:
        raise CohortError(f"{manifest['name']}: none of {len(manifest['files'])} files has a single case and sample.")
    obs = pd.DataFrame(rows).sort_values(["project", "aliquot", "file_id"], ignore_index=True)
    shared = obs["aliquot"].duplicated(keep=False) | (obs["aliquot"] == "")
    obs.index = pd.Index(obs["aliquot"].where(~shared, obs["file_id"])).rename(None)
    for column in ("days_to_death", "days_to_last_follow_up", "age_at_index"):
        obs[column] = pd.to_numeric(obs[column], errors="coerce").astype(float)
    obs["vital_status"] = pd.Categorical(obs["vital_status"], ALIVE_OR_DEAD)
    who = obs.drop_duplicates("patient").set_index("patient")
    days = who["days_to_death"].where(who["vital_status"] == "Dead", who["days_to_last_follow_up"])
    obs = with_survival(obs, who["vital_status"].astype(object).map({"Dead": 1, "Alive": 0}), days)
    fields = _fields(obs)
    obs = obs.assign(**{field: fields[field].to_numpy() for field in fields if field not in obs})
    for column in ("project", "cohort", "sample_type", "tissue_type", "sex", *fields.columns.difference(["patient"])):
        obs[column] = obs[column].astype("category")
    return obs, left_out


def _fields(obs: pd.DataFrame) -> pd.DataFrame:
    """The fields of the aliquots' barcodes, or the samples' where one is unnamed; none outside TCGA and TARGET."""
    try:
        return parse_barcodes(_barcodes(obs))
    except CohortError:
        return pd.DataFrame(index=obs.index)


def _barcodes(obs: pd.DataFrame) -> pd.Series:
    return obs["aliquot"].astype(str).where(obs["aliquot"] != "", obs["sample"].astype(str))


def _row(hit: dict) -> dict | None:
    """What one hit of the files endpoint says, or None where it is not of one case and one sample."""
    cases = hit.get("cases") or []
    samples = (cases[0].get("samples") or []) if len(cases) == 1 else []
    if len(samples) != 1 or not cases[0].get("submitter_id") or not samples[0].get("submitter_id"):
        return None
    case, sample, person = cases[0], samples[0], cases[0].get("demographic") or {}
    portions = sample.get("portions") or []
    analytes = [analyte for portion in portions for analyte in portion.get("analytes") or []]
    aliquots = {aliquot.get("submitter_id") for analyte in analytes for aliquot in analyte.get("aliquots") or []}
    project = (case.get("project") or {}).get("project_id") or "unknown"
    seen = [entry.get("days_to_last_follow_up") for entry in case.get("diagnoses") or []]
    seen += [entry.get("days_to_follow_up") for entry in case.get("follow_ups") or []]
    return {
        "patient": case["submitter_id"],
        "sample": sample["submitter_id"],
        "aliquot": (aliquots.pop() or "") if len(aliquots) == 1 else "",
        "project": project,
        "cohort": project.removeprefix("TCGA-").removeprefix("TARGET-"),
        "sample_type": sample.get("sample_type"),
        "tissue_type": sample.get("tissue_type"),
        "vital_status": person.get("vital_status"),
        "days_to_death": person.get("days_to_death"),
        "days_to_last_follow_up": max((days for days in seen if days is not None), default=None),
        "age_at_index": person.get("age_at_index"),
        "sex": person.get("gender"),
        "file_id": hit["file_id"],
    }


def _chosen_samples(
    obs: pd.DataFrame, duplicates: str, keep: str, where: str, left_out: dict
) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows that the rule and the condition keep, and their numbers in the file."""
    chosen = obs.assign(row=np.arange(len(obs)))
    if duplicates == "one":
        try:
            first, rule = one_per_sample(_barcodes(obs)), "first vial, last plate kept"
        except CohortError:
            first, rule = ~obs["sample"].duplicated(keep="last").to_numpy(), "last barcode kept"
        left_out[f"further aliquots of a patient and sample type ({rule})"] = int((~first).sum())
        chosen = chosen[first].set_axis(pd.Index(obs["sample"].astype(str)[first]).rename(None))
    if keep:
        try:
            met = chosen.query(keep)
        except Exception as error:  # whatever pandas makes of a misspelt condition
            columns = ", ".join(map(str, obs.columns))
            raise CohortError(f"{where}: cannot read keep={keep!r} ({error}); columns: {columns}.") from None
        if met.empty:
            raise CohortError(f"{where}: no sample meets keep={keep!r}; look at the values of the columns it names.")
        left_out[f"samples without {keep}"] = len(chosen) - len(met)
        chosen = met
    used = {column: chosen[column].cat.remove_unused_categories() for column in chosen.select_dtypes("category")}
    return chosen.drop(columns="row").assign(**used), chosen["row"].to_numpy()


def _chosen_genes(
    var: pd.DataFrame, genes: str | Iterable[str], ids: str, where: str, left_out: dict
) -> tuple[pd.DataFrame, np.ndarray]:
    """The genes asked for, under the ids asked for, and their numbers in the file."""
    chosen = var.assign(column=np.arange(len(var)))
    symbols = var["symbol"].astype(str)
    if isinstance(genes, str) and genes in set(var["gene_type"]):
        chosen = chosen[(chosen["gene_type"] == genes).to_numpy()]
    elif not (isinstance(genes, str) and genes == "all"):
        wanted = set(_words(genes))
        bare = {word.split(".")[0] if word.startswith("ENSG") else word for word in wanted}
        chosen = chosen[var.index.isin(bare) | symbols.isin(bare).to_numpy()]
        lacking = sorted(bare - set(chosen.index) - set(chosen["symbol"]))
        left_out["genes asked for that GDC's files lack"] = len(lacking)
        if chosen.empty:
            near = nearest(next(iter(lacking), ""), [*var["gene_type"].unique(), *symbols])
            raise CohortError(f"{where}: none of the {len(bare)} genes asked for is in GDC's files ({near}).")
    if ids == "symbol":
        alone = ~symbols.duplicated(keep=False).reindex(chosen.index).to_numpy()
        left_out["genes whose symbol is shared by several"] = int((~alone).sum())
        chosen = chosen[alone]
        chosen = chosen.assign(ensembl=chosen.index).set_axis(pd.Index(chosen["symbol"].astype(str)).rename(None))
    if chosen.empty:
        raise CohortError(f"{where}: every gene asked for shares its symbol with another; pass ids=ensembl.")
    return chosen.drop(columns="column"), chosen["column"].to_numpy()


def _words(genes: str | Iterable[str]) -> list[str]:
    if not isinstance(genes, str):
        return [str(gene) for gene in genes]
    path = Path(genes)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else genes.split("+")
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
