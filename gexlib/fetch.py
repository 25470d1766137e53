"""What can be fetched, and where it is: one function a source, listed in FETCHERS, brings the files of a name.

`fetch_<source>(name)` gives the paths, the expression first; `gexlib.download` brings each of them.
"""

from __future__ import annotations

import gzip
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from gexlib.download import (  # the errors and steps of a download are part of this interface
    CHECKSUMS,
    SETTINGS,
    FetchError,
    NotThereError,
    cached,
    download,
    forget,
    is_web_page,
    record,
)
from gexlib.files import data_folder
from gexlib.unpack import unpack
from gexlib.words import nearest

__all__ = [
    "CHECKSUMS", "FETCHERS", "SETTINGS", "FetchError", "NotThereError", "cached", "cached_geo", "cached_msigdb",
    "download", "fetch", "forget", "is_web_page", "list_sources", "record",
    "unpack",
]  # fmt: skip
GEO = "https://ftp.ncbi.nlm.nih.gov/geo"  # static files
GEO_QUERY = "https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi"  # the only place of a platform's table without its samples
GEO_LICENCE = "NCBI places no restriction on GEO data; submitters may hold rights"
TCGA_LICENCE = "TCGA open access: free with acknowledgement, no re-identification"
MSIGDB = "https://data.broadinstitute.org/gsea-msigdb/msigdb/release"
MSIGDB_RELEASE = "2023.2.Hs"
LICENCES = {"geo": GEO_LICENCE, "msigdb": "CC-BY 4.0"}  # of the others: TCGA's
COLUMNS = ["name", "what", "release", "size", "licence", "notebook"]
SOURCES = [  # without the licence, which goes by the prefix
    ("geo:GSE85047", "283 primary neuroblastomas, GPL5175, INSS stage", "latest", "some 100 MB", "01"),
    ("geo:GSE<number>", "any GEO series that has a series matrix", "latest", "by series", ""),
    ("geo:GSE<number>-GPL<number>", "one platform of a series of several", "latest", "by series", ""),
    ("gdc:TCGA-<project>", "one project, STAR, 60,660 genes", "GDC, current", "some 4 MB a sample", "02, 03"),
    ("gdc:TCGA", "all projects, STAR, 60,660 genes", "GDC, current", "some 45 GB", "03"),
    ("xena:GDC-PANCAN", "all projects, HTSeq FPKM-UQ, 60,483 genes", "GDC before 32", "some 3 GB", "03"),
    ("xena:TCGA-<project>", "one project, HTSeq FPKM, 60,483 genes", "GDC before 32", "up to 300 MB", "02, 03"),
    ("xena:TCGA-<project>.star_fpkm", "STAR, 60,660 genes; also .star_tpm, …", "GENCODE v36", "up to 400 MB", "02, 03"),
    ("xena:TCGA-GBM-U133A", "539 glioblastoma arrays, 12,042 genes", "TCGA hub", "some 20 MB", "04"),
    ("xena:TCGA-<project>-HiSeqV2", "one project, RSEM, 20,530 genes", "TCGA hub", "up to 100 MB", "05"),
    ("xena:TOIL", "TCGA computed anew by Toil, 60,498 genes", "GENCODE v23", "some 2 GB", "02, 03"),
    ("firehose:<cohort>", "BRCA, COAD, KIPAN, …: RSEM, 20,531 genes", "2016-01-28", "up to 200 MB", "05"),
    ("msigdb:h.all", "50 hallmark gene sets", MSIGDB_RELEASE, "some 50 kB", "02b, 04b"),
    ("msigdb:<collection>.v<release>", "such as msigdb:c2.cgp.v2023.2.Hs", "as named", "up to 10 MB", "02b, 04b"),
]


def list_sources() -> pd.DataFrame:
    """What `fetch` can download: name, what, release, size, licence, and the notebook that uses it.

    Sizes are of the download, and orders of magnitude: the archives do not state them in one place.
    """
    rows = [(*row[:4], LICENCES.get(row[0].partition(":")[0], TCGA_LICENCE), row[4]) for row in SOURCES]
    return pd.DataFrame(rows, columns=COLUMNS)


def fetch(name: str) -> list[Path]:
    """Download a public cohort into the data folder, or verify what is there already; the expression file comes first.

    Raises
    ------
    FetchError : unknown name, or a download that did not work
    """
    prefix = str(name).partition(":")[0]
    if ":" not in str(name) or prefix not in FETCHERS:
        raise FetchError(f"no source '{name}' to fetch from ({nearest(name, list_sources()['name'])}).")
    return FETCHERS[prefix](name)


def fetch_msigdb(name: str) -> list[Path]:
    """The gene sets of ``msigdb:h.all`` (release `MSIGDB_RELEASE`) or, by release, ``msigdb:c2.cgp.v7.5.1``, as GMT."""
    path = _gene_sets(name)
    release = path.name.partition(".v")[2].removesuffix(".symbols.gmt")
    return [download(f"{MSIGDB}/{release}/{path.name}", path, end=b"\n")]


def cached_msigdb(name: str) -> Path:
    """The GMT file that `fetch` has placed, verified; FetchError where there is none."""
    return cached(name, _gene_sets(name))


def _gene_sets(name: str) -> Path:
    found = re.fullmatch(r"msigdb:([a-z]\w*(?:\.[a-z]\w*)+)(?:\.v([\d.]+(?:\.Hs)?))?", str(name))
    if found is None:
        raise FetchError(
            f"'{name}' is no collection of MSigDB; expected a form like msigdb:h.all or msigdb:c2.cgp.v7.5.1."
        )
    return data_folder() / "msigdb" / f"{found[1]}.v{found[2] or MSIGDB_RELEASE}.symbols.gmt"


def fetch_geo(name: str) -> list[Path]:
    """The series matrix of ``geo:GSE85047`` (or ``geo:GSE781-GPL96``) and, where it has values, its platform's table.

    The submitter's table is taken, because NCBI's shorter annotation lacks `gene_assignment`.
    """
    matrix = _geo_matrix(name)
    series = matrix.parent.name
    thousands = re.sub(r"\d{1,3}$", "nnn", series)
    download(f"{GEO}/series/{thousands}/{series}/matrix/{matrix.name}", matrix)
    text = gzip.decompress(matrix.read_bytes())
    platform = re.search(rb'\n!Sample_platform_id\t"?(GPL\d+)', text)
    if platform is None or re.search(rb"\n!series_matrix_table_begin\n[^\n]*\n!", text):
        return [matrix]
    gpl = platform[1].decode()
    query = f"{GEO_QUERY}?acc={gpl}&targ=self&form=text&view=data"
    return [matrix, download(query, matrix.with_name(f"{gpl}.txt"), end=b"!platform_table_end")]


def cached_geo(name: str) -> Path:
    """The series matrix that `fetch` has placed, verified like its neighbours; FetchError where there is none."""
    return cached(name, _geo_matrix(name))


def _geo_matrix(name: str) -> Path:
    found = re.fullmatch(r"geo:((GSE\d+)(-GPL\d+)?)", str(name))
    if found is None:
        raise FetchError(f"'{name}' is no GEO series; expected geo:GSE and a number, such as geo:GSE85047.")
    return data_folder() / "geo" / found[2] / f"{found[1]}_series_matrix.txt.gz"


def _of_module(module: str, function: str) -> Callable[[str], list[Path]]:
    """A fetcher that lies in another module, which is imported at its first use."""
    return lambda name: getattr(importlib.import_module(module), function)(name)


FETCHERS = {
    "geo": fetch_geo,
    "msigdb": fetch_msigdb,
    "gdc": _of_module("gexlib.fetch_gdc", "fetch_gdc"),
    "xena": _of_module("gexlib.sources.xena", "fetch_xena"),
    "firehose": _of_module("gexlib.sources.firehose", "fetch_firehose"),
}
