"""Your own matrix: a text or parquet table of expression, with a table of samples beside it."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import polars as pl

from gexlib.cohort import ENSEMBL, LARGEST_LOG2, CohortError, make_cohort, set_inss
from gexlib.fetch import is_web_page
from gexlib.files import sha256_of, written_whole
from gexlib.words import nearest

ORIENTATIONS = ("genes x samples", "samples x genes", "auto")
NULLS = ["", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL"]
SAMPLE_COLUMNS = ("sample", "sample_id", "sampleid", "id")
PATIENT_COLUMNS = ("patient", "patient_id", "case_id", "subject", "subject_id", "individual", "donor")  # first wins
INSS_COLUMN = re.compile(r"inss([._ ]?stage)?", re.IGNORECASE)
TCGA_ALIQUOT = re.compile(r"TCGA-\w\w-\w{4}-\d\d\w-\d\d\w-\w{4}-\d\d")
TCGA = re.compile(r"TCGA[-.]\w\w[-.]\w{4}")
GENE_LIKE = re.compile(r"ENS[A-Z]*G\d{6,}.*|SIM\d{5}|hsa-(mir|let)-.+|.+_(at|st)|\S+\|\d+", re.IGNORECASE)
FAMILIAR_GENES = frozenset("ACTB B2M EGFR ERBB2 ESR1 GAPDH HPRT1 KRAS MKI67 MYC MYCN PTEN RPLP0 TP53 VEGFA".split())
COPIES_ON_Y = re.compile(r"ENSGR\d+.*|.+_PAR_Y")
SIMULATED_GENE = re.compile(r"SIM\d{5}")  # as our simulators name them: no file of theirs passes for real
FLOORED = re.compile(r"log2_floor(\d+)")
RAISED = "pass transform=log2_floor20, or your assay's floor in place of 20, which first raises what lies below it"
NUMBERS = "expected bare numbers (1.5, no commas) in every column but the first: describe samples in a table of them."


def load(
    name: str,
    samples: str | None = None,
    orientation: str = "auto",
    transform: str | None = None,
    unit: str | None = None,
) -> anndata.AnnData:
    """Open a matrix file (.tsv, .csv, .txt, .parquet; gzipped or not) as a cohort.

    Parameters
    ----------
    name : path of the matrix
    samples : path of the samples table; its first column, or one named ``sample``, ``sample_id`` or ``id``, holds the
        sample ids; one named ``patient``, ``patient_id``, ``case_id``, ``subject`` or ``donor`` the patients
    orientation : ``auto``, ``genes x samples`` or ``samples x genes``
    transform : ``log2`` takes log2(x + 1); ``log2_floor20`` first raises what lies below 20 to it (any whole number
        will do), for intensities that fall below zero; ``none`` keeps linear values, whose `unit` must then be given
    unit : the scale of the values in the file, such as ``log2(TPM + 1)`` or, before ``transform=log2``, ``TPM``

    Raises
    ------
    CohortError : a file cannot be read, the ids do not fit, the scale is not said, or the contract is broken
    """
    values, table = read_matrix(name), read_samples(samples) if samples else None
    values, how = _samples_by_genes(values, table, orientation, name)
    left_out = {}
    if table is not None:
        known = values.index.isin(table.index)
        left_out["samples of the matrix that the samples table does not list"] = (~known).sum()
        left_out["rows of the samples table without expression"] = (~table.index.isin(values.index)).sum()
        values = values[known]
    copies = values.columns.str.fullmatch(COPIES_ON_Y)
    left_out["copies on Y of pseudoautosomal genes"] = copies.sum()
    values, scale, notes = to_scale(values.loc[:, ~copies], transform, unit, name)
    obs, who = with_patients(pd.DataFrame(index=values.index) if table is None else table.loc[values.index])
    paths = [Path(path) for path in (name, samples) if path]
    cohort = make_cohort(
        np.ascontiguousarray(values), obs, gene_table(values.columns), name=str(name), unit=scale,
        source=f"matrix file {paths[0].name}", files={path.name: sha256_of(path) for path in paths},
        transforms=[f"read as {how}", *notes, *who], left_out=left_out,
        simulated=bool(values.columns.str.fullmatch(SIMULATED_GENE).all()),
    )  # fmt: skip
    return with_stages(cohort)


def read_matrix(path: str | Path) -> pd.DataFrame:
    """The numbers of a matrix file as they lie there: rows x columns, float32, ids as text, missing cells NaN.

    Raises
    ------
    CohortError : no such file, empty, damaged, a web page or binary, no header, or a cell that is no number
    """
    ids, values = _read_table(path, pl.Float32)
    words = values.select_dtypes(exclude="number")
    if not words.empty:
        raise CohortError(f"{path}: column '{words.columns[0]}' holds '{words.iloc[0, 0]}'; {NUMBERS}")
    return pd.DataFrame(values.to_numpy(np.float32), _named(ids, path), values.columns)


def read_samples(path: str | Path) -> pd.DataFrame:
    """A samples table indexed by sample id, its columns as `typed` makes them.

    Raises
    ------
    CohortError : the file cannot be read, a sample id is missing, or a sample id or a column name occurs twice
    """
    table = pd.concat(_read_table(path, pl.String), axis=1).dropna(how="all")
    key = next((i for i, column in enumerate(table.columns) if column.lower() in SAMPLE_COLUMNS), 0)
    ids = _named(table.iloc[:, key], path)
    for what, names in (("column names", table.columns), ("sample ids", ids)):
        twice = names[names.duplicated()]
        if len(twice):
            raise CohortError(f"{path}: {len(twice)} duplicated {what}, the first is '{twice[0]}'; keep one of each.")
    return table.set_axis(ids).drop(columns=table.columns[key]).apply(typed)


def read_text(path: str | Path) -> bytes:
    """The text of a file, inflated where it is gzipped whatever its name says, without the line ends at its end.

    Raises
    ------
    CohortError : no such file, a damaged gzip, a web page, or no plain text
    """
    try:
        text = Path(path).read_bytes()
        if text.startswith(b"\x1f\x8b"):
            text = gzip.decompress(text)  # polars could, in several times the memory and time where columns are many
    except (OSError, EOFError, zlib.error) as error:
        found = getattr(error, "strerror", None) or "the gzip is cut off or damaged"
        raise CohortError(f"{path}: {found.lower()}; check the path, or fetch or copy the file again.") from error
    page = is_web_page(text[:100])
    if page or b"\0" in text[:1000]:
        found = "a web page, not data: fetch it again" if page else "no plain text: save it as UTF-8, tab-separated"
        raise CohortError(f"{path}: this is {found}.")
    return text.rstrip(b"\r\n")


def typed(words: pd.Series) -> pd.Series:
    """A column of text as numbers where every word is one, as a categorical where words repeat, else as it is.

    Patients and INSS stages stay words: a missing value would turn stage 4 into 4.0.
    """
    if words.dtype not in (object, "string"):
        return words
    words = words.astype(object).map(lambda word: word.strip() if isinstance(word, str) else word)
    if words.name.lower() in PATIENT_COLUMNS:
        return words
    numbers = pd.to_numeric(words, errors="coerce")
    if numbers.notna().any() and numbers.isna().equals(words.isna()) and not INSS_COLUMN.fullmatch(words.name):
        return numbers
    return words.astype("category") if 0 < words.nunique() < len(words) else words


def with_patients(obs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """`obs` with a column ``patient``, from a column of a like name or from TCGA barcodes, and a note of which."""
    column = next((name for known in PATIENT_COLUMNS for name in obs if name.lower() == known), None)
    if column is not None:
        return obs.assign(patient=obs[column]), [f"patient read from '{column}'"] * (column != "patient")
    if not all(TCGA.match(sample) for sample in obs.index):
        return obs, []
    patients = obs.index.str[:12].str.replace(".", "-")
    return obs.assign(patient=patients), ["patient taken from the first 12 characters of the TCGA barcode"]


def with_plates(obs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """`obs` with a column ``plate`` where every sample is a whole TCGA aliquot barcode, and a note of it."""
    if "plate" in obs or not all(TCGA_ALIQUOT.match(sample) for sample in obs.index):
        return obs, []
    return obs.assign(plate=obs.index.str.split("-").str[5]), ["plate taken from the sixth field of the TCGA barcode"]


def with_stages(cohort: anndata.AnnData) -> anndata.AnnData:
    """Write ``inss_stage`` in its declared order where the samples table has an INSS column under any usual name."""
    columns = [column for column in cohort.obs if INSS_COLUMN.fullmatch(column)]
    return set_inss(cohort, "inss_stage" if "inss_stage" in columns else columns[0]) if columns else cohort


def gene_table(ids: pd.Index) -> pd.DataFrame:
    """The table of genes under their contract names: Ensembl ids without version, symbols without their Entrez id.

    ``SYMBOL|ENTREZ`` becomes the symbol where that is unique and known (not ``?``) and stays whole where it is not;
    `var["entrez"]` keeps the number, `var["id_in_file"]` the id as it was where any id changed.
    """
    ids = pd.Series(ids, dtype=object).astype(str)
    names, var = ids.where(~ids.str.match(ENSEMBL), ids.str.split(".").str[0]), {}
    parts = ids.str.extract(r"^([^|]+)\|(\d+)$")
    if parts[1].notna().mean() > 0.5:
        names = parts[0].where((parts[0] != "?") & ~parts[0].duplicated(keep=False)).fillna(names)
        var["entrez"] = parts[1].fillna("")
    if not names.equals(ids):
        var["id_in_file"] = ids
    return pd.DataFrame(var, ids.index).set_axis(pd.Index(names, name=None))


def to_scale(
    values: pd.DataFrame, transform: str | None, unit: str | None, where: str
) -> tuple[pd.DataFrame, str, list[str]]:
    """The values (samples x genes) on the scale asked for, their unit, and a line for provenance where they changed.

    Raises
    ------
    CohortError : values above 50 whose scale nobody has said, log2 of negative values or of what is log2 already
    """
    floor = FLOORED.fullmatch(transform or "")
    if transform not in (None, "none", "log2") and not floor:
        raise CohortError(f"{where}: there is no transform '{transform}'; expected log2, log2_floor20 or none.")
    X, unit = values.to_numpy(), unit or ""
    finite = np.isfinite(X)
    low, high = X.min(where=finite, initial=0), X.max(where=finite, initial=0)
    if transform in (None, "none"):
        if high > LARGEST_LOG2 and not unit:
            found, cure = f"gene '{_gene_at(values, high)}' reaches {high:g}", "pass transform=log2 for log2(x + 1)"
            if low < 0:
                found, cure = f"{found} and gene '{_gene_at(values, low)}' falls to {low:g}", RAISED
            raise CohortError(
                f"{where}: {found}; values above {LARGEST_LOG2:g} look linear: {cure}, or transform=none and the unit, "
                f"such as unit={'intensity' if low < 0 else 'counts'}."
            )
        return values, unit or "unstated scale", []
    if unit.lower().startswith("log"):
        raise CohortError(f"{where}: unit={unit} says that the values are logarithms; leave transform={transform} out.")
    if high < LARGEST_LOG2 / 2 and not unit:
        raise CohortError(
            f"{where}: values from {low:g} to {high:g} look like logarithms; transform={transform} takes linear ones: "
            f"leave it out, or say the linear unit, such as unit=TPM."
        )
    if low < 0 and not floor:
        raise CohortError(
            f"{where}: gene '{_gene_at(values, low)}' falls to {low:g}, and transform=log2 takes values of zero or "
            f"more: {RAISED}, or transform=none and the unit, such as unit=intensity."
        )
    result, notes = f"log2({unit or 'x'} + 1)", []
    if floor:
        least = np.float32(floor[1])
        notes = [f"{(X < least).sum():,} of {X.size:,} values raised to {least:g}"]
        values = values.clip(lower=least)
    return np.log2(values + np.float32(1)), result, [*notes, result]


def _gene_at(values: pd.DataFrame, value: float) -> str:
    """The first gene, a column, that holds a value."""
    return values.columns[(values.to_numpy() == value).any(axis=0).argmax()]


def looks_like_genes(ids: pd.Index) -> bool:
    """True where most ids have a form that only genes have, or two are familiar symbols."""
    return ids.str.fullmatch(GENE_LIKE).mean() > 0.5 or len(FAMILIAR_GENES & set(ids.str.upper())) > 1


def write_example(folder: str | Path) -> list[Path]:
    """Write a small simulated matrix and its samples table as templates; existing files are never replaced.

    ``expression.tsv`` holds 1,200 genes of 120 tumours in log2 units, ``samples.csv`` their patients and an invented
    ``response``: *no* where the simulated tumour is of stage 4, so that the genes have something to say about it.

    Raises
    ------
    CohortError : one of the files exists already
    """
    from gexlib.sources.simulated import simulate

    cohort = simulate("neuroblastoma", n=120, genes=1200, seed=1)
    table = cohort.obs[["patient"]].assign(response=np.where(cohort.obs["inss_stage"] == "4", "no", "yes"))
    table = table.join(cohort.obs.drop(columns="patient"))
    matrix = cohort.to_df().T.to_csv(sep="\t", index_label="gene", float_format="%.2f", lineterminator="\n")
    contents = {
        Path(folder, "expression.tsv"): matrix,
        Path(folder, "samples.csv"): table.to_csv(index_label="sample", lineterminator="\n"),
    }
    for path in filter(Path.exists, contents):
        raise CohortError(f"{path}: exists already and is not replaced; name another folder or remove the file.")
    for path, content in contents.items():
        with written_whole(path) as temporary:
            temporary.write_bytes(content.encode())
    return list(contents)


def _read_table(path: str | Path, kind: type[pl.DataType]) -> tuple[pd.Series, pd.DataFrame]:
    """The first column of a text or parquet table, and the others; those of a text are cast to `kind` while reading."""
    if Path(path).suffix == ".parquet":
        try:
            table = pd.read_parquet(path)
        except (ValueError, OSError) as error:
            raise CohortError(f"{path}: cannot be read as parquet ({error}); write the file again.") from error
        table = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
        if table.empty or table.shape[1] < 2:
            raise CohortError(f"{path}: is empty ({table.shape[0]} x {table.shape[1]}); expected ids and values.")
        table.columns = table.columns.astype(str)
        return table.iloc[:, 0], table.iloc[:, 1:]
    text = read_text(path)
    separator, skip_lines, columns = _layout(path, text)
    schema = {"0": pl.String} | {str(column): kind for column in range(1, len(columns))}  # names may occur twice
    try:
        cells = pl.read_csv(
            text, has_header=False, skip_lines=skip_lines, separator=separator, schema=schema, null_values=NULLS,
            encoding="utf8-lossy",
        )  # fmt: skip
    except pl.exceptions.PolarsError as error:
        _check_field_counts(path, text, separator, skip_lines, len(columns))
        reason = str(error).splitlines()[0]
        word = re.search(r"`(.+)` as dtype `f32` at column '(\d+)'", reason)
        if word is None:
            raise CohortError(f"{path}: {reason}; expected a table whose quotes, if any, stand in pairs.") from error
        raise CohortError(f"{path}: column '{columns[int(word[2])]}' holds '{word[1]}'; {NUMBERS}") from error
    if cells[cells.columns[-1]].null_count():
        _check_field_counts(path, text, separator, skip_lines, len(columns))
    return pd.Series(cells["0"], name=columns[0]), pd.DataFrame(cells[:, 1:].to_numpy(), columns=columns[1:])


def _layout(path: str | Path, text: bytes) -> tuple[str, int, list[str]]:
    """The separator, how many lines end with the header (comments begin with ``#``), and the names of the columns."""
    lines = enumerate(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8-sig", errors="replace"), start=1)
    skip_lines, header = next((pair for pair in lines if pair[1].strip() and pair[1][0] != "#"), (0, ""))
    first = next((line for _, line in lines if line.strip()), None)
    if first is None:
        found = "there is a header and not one row below it" if header else "the file is empty"
        raise CohortError(f"{path}: {found}; expected a header row and a table below it.")
    marks = ("\t", ";" if header.count(";") > header.count(",") else ",", " ")
    separator = next((mark for mark in marks if mark in header.strip()), None)
    if separator is None:
        raise CohortError(f"{path}: the header '{header.strip()}' is one word; expected names split by tabs or commas.")
    names, fields = _fields(header, separator), _fields(first, separator)
    if len(fields) == len(names) + 1 and fields[-1]:
        names = ["", *names]  # write.table of R leaves the corner out
    numeric = pd.to_numeric(pd.Series(names[1:]), errors="coerce").notna().all()
    if numeric and (skip_lines > 1 or "." in "".join(names[1:])):  # bare whole numbers may be sample ids
        raise CohortError(f"{path}: the first row holds numbers ({names[1]}, …); expected ids, and no '#' before them.")
    return separator, skip_lines, names


def _fields(line: str, separator: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line.rstrip("\n")], delimiter=separator), [])]


def _check_field_counts(path: str | Path, text: bytes, separator: str, skip_lines: int, expected: int) -> None:
    """Name the first line that has more or fewer fields than the header; a short last line is a cut-off file."""
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", errors="replace"), start=1):
        found = len(_fields(line, separator))
        if number > skip_lines and line.strip() and found != expected:
            raise CohortError(f"{path}: line {number} has {found} fields; expected {expected}; is the file cut off?")


def _named(ids: pd.Series, path: str | Path) -> pd.Index:
    """Ids as text without the blanks around them, none of them missing."""
    if ids.isna().any():
        row = ids.index[ids.isna()][0] + 1
        raise CohortError(f"{path}: row {row} below the header has no id; give every row one.")
    return pd.Index(ids.astype(str).str.strip(), name=None)


def _samples_by_genes(
    values: pd.DataFrame, table: pd.DataFrame | None, orientation: str, where: str
) -> tuple[pd.DataFrame, str]:
    """The matrix as samples x genes, and how its orientation became known."""
    said, how, (rows, columns) = orientation.lower().replace("×", "x"), "as said", values.axes
    if said not in ORIENTATIONS:
        raise CohortError(f"{where}: no orientation '{orientation}' ({nearest(said, ORIENTATIONS)}).")
    where = f"{where} ({len(rows)} rows, the first '{rows[0]}'; {len(columns)} columns, the first '{columns[0]}')"
    if table is not None:
        said, how = _orientation_by_samples(rows, columns, table.index, said, where), "its ids are in the samples table"
    elif said == "auto":
        genes = looks_like_genes(rows), looks_like_genes(columns)
        if genes[0] == genes[1]:  # genes outnumber samples
            genes = len(rows) >= 5 * len(columns), len(columns) >= 5 * len(rows)
        if genes[0] == genes[1]:
            hint = "pass orientation='genes x samples' or orientation='samples x genes'"
            raise CohortError(f"{where}: cannot tell which are genes; {hint}.")
        said, how = ORIENTATIONS[genes.index(True)], "by the form of its gene ids or its shape"
    return values if said == "samples x genes" else values.T, f"{said} ({how})"


def _orientation_by_samples(rows: pd.Index, columns: pd.Index, samples: pd.Index, said: str, where: str) -> str:
    shared = samples.isin(columns).sum(), samples.isin(rows).sum()
    found = ORIENTATIONS[int(shared[1] > shared[0])]
    if not any(shared):
        bare, *axes = (ids.str.replace(r"[\W_]", "", regex=True).str.lower() for ids in (samples, columns, rows))
        alike = max(bare.isin(axis).sum() for axis in axes)
        hint = f"use the same ids in both ({alike} differ in case and punctuation only)"
    elif said not in ("auto", found):
        hint = f"looks transposed: pass orientation='{found}' or leave it out"
    else:
        return found
    raise CohortError(
        f"{where}: of the {len(samples)} sample ids of the samples table (first '{samples[0]}') {shared[0]} are in its "
        f"columns and {shared[1]} in its rows; {hint}."
    )
