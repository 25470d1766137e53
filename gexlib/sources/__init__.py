"""Where cohorts come from. One name opens any cohort; a prefix is the module of that name."""

from __future__ import annotations

import importlib
import inspect
import re
from contextlib import suppress
from pathlib import Path

import anndata

from gexlib.cohort import CohortError
from gexlib.sources.real import prepared
from gexlib.sources.simulated import DEFAULT_SIZES
from gexlib.words import nearest

PREFIXES = ("firehose", "gdc", "geo", "real", "simulated", "xena")
PREFIX = re.compile(r"(\w{2,}):.*", re.DOTALL)  # two letters or more: C:\data is a drive
SETTINGS = re.compile(r"(.+?)((?:,[a-z_]+=[^,]*)*)", re.DOTALL)
ACCESSION = re.compile(r"G(SE|DS)\d+", re.IGNORECASE)
GEO_FILE = re.compile(r".*(_series_matrix\.txt|_family\..*|\.soft)(\.gz)?", re.IGNORECASE)
FIREHOSE = b"Hybridization REF\t"
COHORT_FILE = re.compile(r".*\.(h5ad|(tsv|csv|txt|parquet|soft)(\.gz)?)", re.IGNORECASE)
FORMS = (
    "expected simulated:KIND, real:NAME, geo:ACCESSION, gdc:PROJECT, xena:DATASET, firehose:COHORT or the path of an "
    ".h5ad, matrix, series matrix, SOFT or Firehose file"
)


def load_cohort(name: str, samples: str | None = None, **options) -> anndata.AnnData:
    """Open any cohort by name.

    Parameters
    ----------
    name : ``simulated:neuroblastoma``, ``real:NAME`` (a prepared file under GEXLIB_REAL_DATA), ``geo:GSE85047``,
        ``gdc:TCGA-BRCA``, ``xena:TCGA-BRCA``, ``firehose:KIPAN``, or a path: ``.h5ad``, a matrix (``.tsv``, ``.csv``,
        ``.txt``, ``.parquet``, text gzipped or not), a GEO series matrix or SOFT file, a Firehose file. Options may
        follow after commas, as in ``counts.tsv.gz,transform=log2,unit=counts``
    samples : path of the samples table of a matrix file
    options : what `load` of the source's module takes, such as ``transform="log2"`` or ``unit="TPM"``

    Returns
    -------
    anndata.AnnData, samples x genes, that keeps the contract of `gexlib.cohort`

    Raises
    ------
    CohortError : an unknown name or option, a file that cannot be read, or data that break the contract
    """
    name = str(name)
    source, place, written = _source_of(name)
    module = importlib.import_module(f"gexlib.sources.{source}")
    known = [option for option in inspect.signature(module.load).parameters if option not in ("name", "samples")]
    for option in written | options:
        if option not in known:
            raise CohortError(f"{name}: {source} cohorts have no option '{option}' ({nearest(option, known)}).")
    cohort = module.load(place, samples=samples or None, **written | options)
    cohort.uns["cohort"] = place if ACCESSION.fullmatch(name) else name
    return cohort


def split_settings(name: str) -> tuple[str, dict[str, str]]:
    """``path,transform=log2`` as the path and its settings."""
    path, settings = SETTINGS.fullmatch(name).groups()
    return path, dict(setting.split("=", 1) for setting in settings.split(",")[1:])


def _source_of(name: str) -> tuple[str, str, dict[str, str]]:
    """The module that opens `name`, what to hand it, and the options written behind the name."""
    place, settings = (name, {}) if not name or Path(name).exists() else split_settings(name)
    path, prefix = Path(place).expanduser(), PREFIX.fullmatch(place)
    if path.is_file():
        return _source_of_file(path), str(path), settings
    if prefix and prefix[1] in PREFIXES:
        return ("simulated", name, {}) if prefix[1] == "simulated" else (prefix[1], place, settings)
    if ACCESSION.fullmatch(place):
        return "geo", f"geo:{place.upper()}", settings
    if prefix:
        hint = " Download it first." if prefix[1].startswith(("http", "ftp")) else ""
        raise CohortError(f"{name}: there is no source '{prefix[1]}:'; {FORMS}.{hint}")
    if not name or path.is_dir():
        raise CohortError(f"'{name}' is {'a folder' if name else 'no name'}; {FORMS}.")
    if not path.parent.is_dir():
        raise CohortError(f"{name}: no such file, and no folder '{path.parent}'; check the path.")
    files = sorted(file.name for file in path.parent.iterdir() if COHORT_FILE.fullmatch(file.name))
    if len(path.parts) > 1 or COHORT_FILE.fullmatch(path.name):
        raise CohortError(f"{name}: no such file in '{path.parent}' ({nearest(path.name, files)}); check the path.")
    known = [*(f"simulated:{kind}" for kind in DEFAULT_SIZES), *(f"real:{file}" for file in prepared()), *files]
    raise CohortError(f"{name}: no cohort of this name ({nearest(name, known)}); {FORMS}.")


def _source_of_file(path: Path) -> str:
    """The module that opens a file: by its name, and Firehose's by their first words, whatever their name."""
    if path.suffix.lower() == ".h5ad":
        return "h5ad"
    if GEO_FILE.fullmatch(path.name):
        return "geo"
    from gexlib.sources.wide import opened

    with suppress(CohortError), opened(path) as stream:  # the matrix module says what is wrong with it
        if stream.read(len(FIREHOSE)) == FIREHOSE:
            return "firehose"
    return "matrix"
