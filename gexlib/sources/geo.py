"""GEO as NCBI serves it: series matrices, SOFT family and GDS files, and the platforms that name their probes.

Whatever the form, a file is first brought to one shape, `GeoSeries`. A series matrix is read here, because GEOparse
returns an empty series for one without an error; SOFT is GEOparse's.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import anndata
import pandas as pd
import polars as pl

from gexlib.cohort import ENSEMBL, LARGEST_LOG2, MISSING, CohortError, make_cohort
from gexlib.fetch import GEO_LICENCE, cached_geo
from gexlib.files import sha256_of
from gexlib.sources.matrix import gene_table, read_matrix, read_text, to_scale, typed, with_patients, with_stages
from gexlib.words import nearest

SYMBOL_COLUMNS = ("gene_symbol", "gene_sym", "symbol", "gene_assignment", "identifier")  # as `_plain` writes them
SCALES = (  # what a header says of its values -> their unit
    (re.compile(r"\b(gc)?rma\b", re.IGNORECASE), "log2 RMA"),
    (re.compile(r"\blog(arithm)?[\s_-]*(to )?(base)?[\s(_-]*2", re.IGNORECASE), "log2"),
)


@dataclass
class GeoSeries:
    """One GEO series or data set, whatever the form of its file."""

    header: dict[str, list[str]]  # key without its prefix, such as `title` or `supplementary_file` -> values
    samples: pd.DataFrame  # indexed by GSM id: text columns `title`, `platform_id`, …, and the characteristics by name
    expression: pd.DataFrame  # probes x samples; empty where the values are in a supplementary file
    probes: pd.DataFrame  # the platform's table as it lies in the file, with a column ID; empty where it is elsewhere
    processing: str  # the submitter's words on how the values were made: they say the scale


def load(
    name: str,
    samples: str | None = None,
    *,
    matrix: str | None = None,
    platform: str | None = None,
    genes: str = "unambiguous",
    missing: str | None = None,
    transform: str | None = None,
    unit: str | None = None,
) -> anndata.AnnData:
    """Open a GEO series as a cohort of samples x genes.

    Parameters
    ----------
    name : ``geo:GSE85047`` (from the cache that `gexlib.fetch` fills), or a path to a series matrix, a SOFT family
        file or a GDS file, gzipped or not
    matrix : a file of genes x samples (ids or titles), for a series whose own table is empty
    platform : an annotation of the probes (platform table, ``.annot.gz`` or SOFT); else the one inside or beside `name`
    genes : ``unambiguous`` keeps probes that name exactly one gene, ``first`` takes the first gene that a probe names;
        probes of one gene are averaged
    missing : ``drop`` leaves out probes with missing values; otherwise they are an error
    transform, unit : as for a matrix file; the header's words on the scale stand in for `unit`

    Returns
    -------
    anndata.AnnData with `obs` columns named by the characteristics, and `inss_stage` where the series has INSS stages

    Raises
    ------
    CohortError : anything that keeps the file from being a cohort
    """
    if samples:
        raise CohortError(f"{name}: a GEO file describes its own samples; leave samples={samples!r} out.")
    for option, value, known in (("genes", genes, ("unambiguous", "first")), ("missing", missing, ("drop", None))):
        if value not in known:
            raise CohortError(f"{name}: {option}={value!r} is not known ({nearest(value, known)}).")
    path = cached_geo(name) if str(name).startswith("geo:") else Path(name)
    series, by_probe = read_geo(path), platform is not None or matrix is None
    notes = {"files": {path.name: sha256_of(path)}, "left_out": {}, "transforms": []}
    values = _values_inside(series, path.name, notes) if matrix is None else _values_beside(series, matrix, path, notes)
    if by_probe:
        values = _named_by_gene(values, _annotation(series, platform, path, notes), genes, notes)
    values = _complete(values, missing, path.name, notes)
    if values.max(axis=None) <= LARGEST_LOG2:  # the header may speak of logarithms that were not taken
        unit = unit or next((unit for said, unit in SCALES if said.search(series.processing)), None)
    values, unit, scaled = to_scale(values.T, transform, unit, path.name)
    notes["transforms"] += scaled
    values, var = _averaged(values, notes) if by_probe else (values, gene_table(values.columns))
    cohort = make_cohort(
        values.to_numpy(), _described(series.samples.loc[values.index], notes), var, name=str(name), unit=unit,
        source=f"GEO {_first(series.header, 'geo_accession', path.name)}: {_first(series.header, 'title')}",
        release=_first(series.header, "last_update_date"), licence=GEO_LICENCE, **notes,
    )  # fmt: skip
    return with_stages(cohort)


def read_geo(path: str | Path) -> GeoSeries:
    """Read a series matrix, a SOFT file with samples or a GDS file, gzipped or not.

    Raises
    ------
    CohortError : no such file, empty, a web page, a damaged gzip, a table without its end, or no GEO samples
    """
    path = Path(path)
    text = _text(path)
    if b"!series_matrix_table_begin" in text:
        return _read_matrix(text, path.name)
    entries = set(re.findall(rb"\n\^(\w+)", b"\n" + text))
    del text  # GEOparse opens the file anew
    if b"DATASET" in entries:
        return _read_gds(path)
    if entries & {b"SERIES", b"SAMPLE"}:
        return _read_family(path)
    expected = "*_series_matrix.txt.gz or *_family.soft.gz"
    raise CohortError(f"{path.name}: neither a whole series matrix nor SOFT with samples; expected {expected}.")


def read_platform(path: str | Path) -> pd.Series:
    """Probe -> text of the symbol column, which names the Series; of a platform table, NCBI ``.annot`` or SOFT file.

    Raises
    ------
    CohortError : the file is no platform table, is cut, or has no column of gene symbols
    """
    path = Path(path)
    text = _text(path)
    head = re.search(rb"^[^\^!#\s][^\n]*\t[^\r\n]*", text, re.MULTILINE)
    if head is None:
        raise CohortError(f"{path.name}: holds no platform table; expected a tab-separated table with a column ID.")
    columns = head[0].decode("utf-8", "replace").split("\t")
    probe, symbol = "ID" if "ID" in columns else columns[0], _symbol_column(columns, path.name)
    end = text.find(b"!platform_table_end")
    table = pl.read_csv(
        text[head.start() : end if end > 0 else None], separator="\t", columns=[probe, symbol], quote_char=None,
        infer_schema=False, encoding="utf8-lossy", truncate_ragged_lines=True,
    )  # fmt: skip
    return pd.Series(table[symbol].to_list(), table[probe].to_list(), dtype=object, name=symbol)


def symbols_of(assignment: object) -> list[str]:
    """The distinct gene symbols that a probe's annotation names, in order.

    Two grammars: ``accession // symbol // title // …`` (the column `gene_assignment`) or plain symbols, several of
    either separated by ``///``. ``---``, empty, controls (``--Control``) and Ensembl ids name none.
    """
    words = []
    for part in assignment.split("///") if isinstance(assignment, str) else ():
        fields = [field.strip() for field in part.split("//")]
        words.append(fields[min(1, len(fields) - 1)])
    named = (word for word in words if word and not word.startswith("--") and not ENSEMBL.match(word))
    return list(dict.fromkeys(named))


def _text(path: Path) -> bytes:
    """The content of a GEO file, inflated where it is gzipped, whole by its marks."""
    text = read_text(path)
    if not text or text.isspace():
        raise CohortError(f"{path.name}: the file is empty; fetch it again.")
    marks = re.findall(rb"\n!(\w+)_table_(begin|end)", text)
    for table in sorted({table for table, _ in marks}):
        if marks.count((table, b"begin")) > marks.count((table, b"end")):
            end = f"!{table.decode()}_table_end"
            raise CohortError(f"{path.name}: a table has no {end}; the file is cut: fetch it again.")
    return text


def _read_matrix(text: bytes, where: str) -> GeoSeries:
    head, _, body = text.partition(b"!series_matrix_table_begin")
    header, rows = {}, []
    for line in head.decode("utf-8", "replace").split("\n"):
        key, *words = [word.strip('"') for word in line.rstrip("\r").split("\t")]
        if key.startswith("!Series_"):
            header.setdefault(key.removeprefix("!Series_"), []).extend(words)
        elif key.startswith("!Sample_"):
            rows.append((key.removeprefix("!Sample_"), words))
    table = io.BytesIO(body.partition(b"!series_matrix_table_end")[0])
    try:
        expression = pd.read_csv(table, sep="\t", index_col=0, dtype={"ID_REF": str}, low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CohortError(f"{where}: its table cannot be read ({str(error).strip()}); fetch it again.") from None
    ids = dict(rows).get("geo_accession", [])
    if list(expression.columns) != ids or {len(words) for _, words in rows} != {len(ids)}:
        raise CohortError(f"{where}: its !Sample_ lines and its table are not of the same samples; fetch it again.")
    facts = {gsm: {} for gsm in ids}
    for key, words in rows:
        for gsm, word in zip(ids, words, strict=True):
            facts[gsm].setdefault(key, []).append(word)
    return _series(header, facts, _numbers(expression, where))


def _read_family(path: Path) -> GeoSeries:
    gse = _geoparse(path, "GSE")
    facts = {gsm: {} for gsm in gse.metadata.get("sample_id", [])}
    if gse.gsms and len(gse.gsms) < len(facts):
        raise CohortError(f"{path.name}: only {len(gse.gsms)} of its {len(facts)} samples; it is cut: fetch it again.")
    columns, platforms = {}, set()
    for gsm, entry in gse.gsms.items():
        facts[gsm] = entry.metadata
        if entry.table.empty:
            continue
        if not {"ID_REF", "VALUE"} <= set(entry.table) or entry.table["ID_REF"].duplicated().any():
            raise CohortError(f"{path.name}: the table of {gsm} lacks ID_REF or VALUE, or names a probe twice.")
        columns[gsm] = entry.table.set_index("ID_REF")["VALUE"]
        platforms.add(_first(entry.metadata, "platform_id"))
        facts[gsm].setdefault("data_processing", []).append(str(entry.columns.at["VALUE", "description"]))
    if len(platforms) > 1:
        several = ", ".join(sorted(platforms))
        raise CohortError(f"{path.name}: samples of several platforms ({several}); open the series matrix of one.")
    probes = [gse.gpls[gpl].table for gpl in platforms & set(gse.gpls)]
    return _series(gse.metadata, facts, _numbers(pd.DataFrame(columns), path.name), *probes)


def _read_gds(path: Path) -> GeoSeries:
    gds = _geoparse(path, "GDS")
    table = gds.table.set_index("ID_REF")
    facts = {}
    for gsm, groups in gds.columns.loc[table.columns.drop("IDENTIFIER")].iterrows():
        facts[gsm] = {
            "title": [re.sub(r"^Value for \S+: |; src: .*$", "", groups["description"])],
            "platform_id": gds.metadata.get("platform", []),
            "characteristics_ch1": [f"{kind}: {group}" for kind, group in groups.drop("description").dropna().items()],
            "data_processing": gds.metadata.get("value_type", []),
        }
    header = gds.metadata | {"geo_accession": [gds.name], "last_update_date": gds.metadata.get("update_date", [])}
    probes = pd.DataFrame({"ID": table.index, "IDENTIFIER": table["IDENTIFIER"].to_numpy()})
    return _series(header, facts, _numbers(table[list(facts)], path.name), probes)


def _geoparse(path: Path, kind: str):
    import GEOparse

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            return GEOparse.get_GEO(filepath=str(path), geotype=kind, silent=True, open_kwargs={"encoding": "utf-8"})
    except Exception as error:  # GEOparse raises bare Exceptions, and whatever pandas does
        reason = " ".join(str(error).split())
        raise CohortError(f"{path.name}: GEOparse cannot read this SOFT file ({reason}); fetch it again.") from None


def _series(header: dict, facts: dict, expression: pd.DataFrame, probes: pd.DataFrame | None = None) -> GeoSeries:
    """The one shape of key -> values and GSM id -> key -> values; characteristics go by name: their order varies."""
    records = {}
    for gsm, fact in facts.items():
        known = (("title", gsm), ("platform_id", "unknown"), ("source_name_ch1", ""))
        record = {key: _first(fact, key, default) for key, default in known}
        for text in filter(None, map(str.strip, fact.get("characteristics_ch1", []))):
            name, colon, value = text.partition(":")
            key, value = (_plain(name), value.strip()) if colon else ("characteristics", text)
            record[key] = f"{record[key]}; {value}" if key in record else value
        records[gsm] = record
    samples = pd.DataFrame.from_dict(records, orient="index", dtype=object)
    processing = dict.fromkeys(word for fact in facts.values() for word in fact.get("data_processing", []))
    return GeoSeries(header, samples, expression, pd.DataFrame() if probes is None else probes, " ".join(processing))


def _numbers(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """The table as floats, indexed by text; a word that is no number is an error that names its place."""
    for column in table.select_dtypes(exclude="number"):
        words = table[column][pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()]
        if len(words):
            raise CohortError(f"{where}: probe '{words.index[0]}', sample '{column}': '{words.iloc[0]}' is no number.")
    return table.apply(pd.to_numeric).astype(float).set_axis(table.index.astype(str))


def _values_inside(series: GeoSeries, where: str, notes: dict) -> pd.DataFrame:
    if series.expression.empty:
        files = [file for file in series.header.get("supplementary_file", []) if "readme" not in file.lower()]
        named = ", ".join(file.rpartition("/")[2] for file in files) or "its header names none"
        folder = f" at {files[0].rpartition('/')[0]}" if files else ""
        raise CohortError(
            f"{where}: its expression table is empty for all {len(series.samples)} samples; the expression is in a "
            f"supplementary file ({named}){folder}: download one and pass it as matrix=PATH."
        )
    notes["left_out"]["samples without values"] = len(series.samples) - series.expression.shape[1]
    return series.expression


def _values_beside(series: GeoSeries, matrix: str | Path, path: Path, notes: dict) -> pd.DataFrame:
    """The columns of a matrix file that bear a sample's id or title, under the sample's id."""
    matrix, samples = Path(matrix), series.samples
    if not series.expression.empty:
        raise CohortError(f"{path.name}: has its own expression table; leave matrix={str(matrix)!r} out.")
    table = read_matrix(matrix)
    ids = {title: gsm for gsm, title in samples["title"].items()} | {gsm: gsm for gsm in samples.index}
    values = table.loc[:, table.columns.isin(ids)].rename(columns=ids)
    if values.empty or values.columns.has_duplicates:
        raise CohortError(
            f"{matrix.name}: {values.shape[1]} of its {table.shape[1]} columns (first '{table.columns[0]}') are known; "
            f"expected one column a sample, such as '{samples.index[0]}' or '{samples['title'].iloc[0]}'."
        )
    notes["files"][matrix.name] = sha256_of(matrix)
    notes["left_out"][f"samples that {matrix.name} lacks"] = len(samples) - values.shape[1]
    notes["left_out"][f"columns of {matrix.name} that are no sample"] = table.shape[1] - values.shape[1]
    return values


def _annotation(series: GeoSeries, platform: str | Path | None, path: Path, notes: dict) -> pd.Series:
    """Probe -> text with its symbols: from `platform`, from the SOFT file itself, or from a file beside it."""
    gpl = series.samples["platform_id"].get(next(iter(series.expression), ""), "")
    if platform is None and len(series.probes):
        symbol = _symbol_column(series.probes.columns, f"{path.name}, platform {gpl}")
        return series.probes.set_index(series.probes["ID"].astype(str))[symbol]
    beside = (file for file in sorted(path.parent.glob(f"{gpl}[.-]*")) if file.suffix != ".part")
    file = Path(platform) if platform is not None else next(beside, None)
    if file is None:
        raise CohortError(
            f"{path.name}: its probes are of platform {gpl}, and no annotation of it lies beside the file; pass it as "
            f"platform=PATH (GEO's platform table or .annot.gz), or run `python -m gexlib fetch "
            f"geo:{_first(series.header, 'geo_accession')}`."
        )
    annotation = read_platform(file)
    notes["files"][file.name] = sha256_of(file)
    return annotation


def _symbol_column(columns: Iterable[str], where: str) -> str:
    plain = {_plain(str(column)): str(column) for column in columns}
    found = next((plain[known] for known in SYMBOL_COLUMNS if known in plain), None)
    if found is None:
        raise CohortError(
            f"{where}: no column of gene symbols among {', '.join(plain.values())}; expected gene_assignment or Gene "
            f"Symbol: pass an annotation of the platform that has one as platform=PATH."
        )
    return found


def _named_by_gene(values: pd.DataFrame, annotation: pd.Series, genes: str, notes: dict) -> pd.DataFrame:
    """The probes that keep the rule `genes`, indexed by the gene that each names."""
    known = values.index.isin(annotation.index)
    named = annotation[~annotation.index.duplicated()].reindex(values.index).map(symbols_of)
    several = (named.str.len() > 1).to_numpy()
    kept = (named.str.len() > 0).to_numpy() & ~(several & (genes == "unambiguous"))
    if not kept.any():
        raise CohortError(
            f"{next(iter(notes['files']))}: none of its {len(values)} probes (first '{values.index[0]}') gets a symbol "
            f"from '{annotation.name}'; {known.sum()} are in the platform's table, whose ids look like "
            f"'{next(iter(annotation.index), '')}': pass the annotation of this platform as platform=PATH."
        )
    notes["left_out"]["probes that the platform's table lacks"] = int((~known).sum())
    notes["left_out"]["probes without a gene symbol"] = int((known & ~kept & ~several).sum())
    notes["left_out"]["probes that name several genes"] = int((several & ~kept).sum())
    rule = "unambiguous only" if genes == "unambiguous" else f"the first where several ({several.sum()} probes)"
    notes["transforms"].append(f"probes named by '{annotation.name}', {rule}")
    return values[kept].set_axis(named[kept].str[0].to_numpy())


def _complete(values: pd.DataFrame, missing: str | None, where: str, notes: dict) -> pd.DataFrame:
    """The rows without missing values; a gap is an error unless `missing` says to drop its row."""
    gaps = values.isna()
    rows = gaps.any(axis=1).to_numpy()
    if rows.any() and (missing is None or rows.all()):
        gene, sample = gaps.stack().idxmax()
        raise CohortError(
            f"{where}: {rows.sum()} of {len(values)} rows have missing values, the first at gene '{gene}', sample "
            f"'{sample}'; pass missing=drop to leave such rows out, or impute them first."
        )
    notes["left_out"]["rows with missing values"] = int(rows.sum())
    return values[~rows]


def _averaged(values: pd.DataFrame, notes: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Samples x genes, the mean over each gene's probes, and how many there were."""
    genes = values.T.groupby(level=0)
    probes = genes.size()
    shared = probes[probes > 1]
    notes["transforms"] += [f"{len(shared)} genes are the mean of {shared.sum()} probes"] * (len(shared) > 0)
    return genes.mean().T, pd.DataFrame({"probes": probes})


def _described(samples: pd.DataFrame, notes: dict) -> pd.DataFrame:
    """`obs`: typed characteristics, NA and its kin missing, and the patient where one is named."""
    missing = samples.apply(lambda column: column.str.strip().str.lower().isin(MISSING))
    obs, who = with_patients(samples.mask(missing).apply(typed))
    if "patient" in obs and obs["patient"].isna().any():
        obs["patient"] = obs["patient"].fillna(obs.index.to_series())
        who.append("patient set to the sample id where it is missing")
    notes["transforms"] += who
    return obs


def _plain(name: str) -> str:
    """A column name of lower-case words: `age_at_diagnosis(days)` becomes `age_at_diagnosis_days`."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


def _first(facts: dict[str, list[str]], key: str, default: str = "") -> str:
    return next(iter(facts.get(key, [])), default)
