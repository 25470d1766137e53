"""From some thousand STAR count files to one .h5ad, in bounded memory, restartable at any moment.

Blocks of samples are written one file each, whole or not at all; those that are there are not made again. When all
are there they are copied into the .h5ad, which takes its name when it is whole. X is not compressed, and its chunks
are small both ways: one gene of all samples and one sample of all genes are each read without most of the rest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import polars as pl
from tqdm import tqdm

from gexlib.cohort import CohortError
from gexlib.files import sha256_of, written_whole
from gexlib.sources.gdc import manifest_path, provenance_of, read_manifest, samples_table, star_path

VALUES = {  # the option -> the column of GDC's files, and its unit
    "tpm": ("tpm_unstranded", "TPM"),
    "fpkm": ("fpkm_unstranded", "FPKM"),
    "fpkm_uq": ("fpkm_uq_unstranded", "FPKM-UQ"),
    "counts": ("unstranded", "counts"),
}
OUTSIDE_GENES = ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")  # the rows before the first gene
ON_Y = "_PAR_Y"  # the end of the ids of the pseudoautosomal genes' copies
BLOCK = 256  # samples held in memory at once: 62 MB of 60,660 genes
CHUNKS = (256, 64)  # samples x genes, 64 KiB
FORM = "1"  # of the assembled file; another number makes every cache assemble anew


def assemble(name: str, values: str = "tpm", transform: str = "log2") -> Path:
    """The .h5ad of all files of ``gdc:TCGA-BRCA``; made where there is none, or none of this manifest.

    Every file becomes one row, under its aliquot's barcode. Genes are named by Ensembl id without version. The copies
    on Y of pseudoautosomal genes (``_PAR_Y``) are left out and counted: their ids would not be unique without the
    ending, and GDC's reference masks those regions of Y. Provenance says whether they were zero. The four ``N_*`` rows
    become columns of `obs`.

    Returns
    -------
    path of a file that keeps the cohort contract, X in float32

    Raises
    ------
    CohortError : nothing is cached, files are missing, or one is damaged or of another gene model
    OSError : the disk is full; what is done is kept, and the next call goes on from there
    """
    manifest = read_manifest(name)
    folder = manifest_path(name).parent
    target = folder / f"{values}_{'log2' if transform == 'log2' else 'linear'}.h5ad"
    key = hashlib.sha256(f"{FORM} {BLOCK} {sha256_of(manifest_path(name))}".encode()).hexdigest()
    if _key_of(target) == key:
        return target
    obs, left_out = samples_table(manifest)
    files = _placed(name, manifest, obs)
    blocks = folder / f".{target.stem}-{key[:12]}.blocks"
    blocks.mkdir(exist_ok=True)
    model, genes = read_genes(files[0])
    _check_space(blocks, len(files) * len(genes) * 4)
    column, unit = VALUES[values]
    try:
        for start in _progress(range(0, len(files), BLOCK), f"reading {name}"):
            if not (blocks / f"{start:06d}.npy").is_file():
                block = _read_block(files[start : start + BLOCK], column, genes["id_in_file"], transform)
                for path, content in zip(_paths(blocks, start), block, strict=True):
                    with written_whole(path) as temporary:
                        np.save(temporary, content)
        uns = {"cohort": name, "simulated": False, "unit": f"log2({unit} + 1)" if transform == "log2" else unit}
        uns |= {"assembled_from": key, "provenance": provenance_of(name, manifest)}
        notes = [f"{column} of {len(obs)} files, gene model {model}"] + [f"log2({unit} + 1)"] * (transform == "log2")
        if warnings := manifest.get("warnings"):
            notes.append(f"GDC warned of its answer: {warnings}")
        uns["provenance"] |= {"transforms": notes, "left_out": {k: int(n) for k, n in left_out.items() if n}}
        _write_whole(target, blocks, obs, genes, uns)
    except FileNotFoundError:
        if _key_of(target) != key:  # another process may have been the first to finish
            raise
    for old in folder.glob(f".{target.stem}-*.blocks"):
        shutil.rmtree(old, ignore_errors=True)
    return target


def read_genes(path: Path) -> tuple[str, pd.DataFrame]:
    """The gene model that a STAR count file names, and its genes: id_in_file, symbol, gene_type, in its order."""
    head, table = _parse(path, dict.fromkeys(("gene_id", "gene_name", "gene_type"), pl.String))
    model = head[0].decode(errors="replace").partition(":")[2].strip() or "unstated"
    columns = dict(zip(("id_in_file", "symbol", "gene_type"), table.fill_null("").get_columns(), strict=True))
    return model, pd.DataFrame({key: column.to_numpy() for key, column in columns.items()}, dtype=object)


def read_star(path: Path, column: str) -> tuple[pl.Series, np.ndarray, list[int]]:
    """One STAR count file: gene ids, the values of `column` (genes,) float32, and the reads in the four N_* rows.

    Raises
    ------
    CohortError : the file is of another form, cut off, or holds what is no number of zero or more
    """
    head, table = _parse(path, {"gene_id": pl.String, column: pl.Float32})
    values = table[column].to_numpy()
    if table[column].null_count() or not np.all((values >= 0) & np.isfinite(values)):
        raise CohortError(
            f"{path}: '{column}' has values that are missing or below zero; remove it and fetch it again."
        )
    place = head[1].split(b"\t").index(b"unstranded")
    return table["gene_id"], values, [int(row.split(b"\t")[place]) for row in head[2:]]


def read_part(X: h5py.Dataset, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The rows x columns asked for, in their order, float32: whole chunks are read, a strip of them at a time."""
    high, wide = X.chunks or (BLOCK, X.shape[1])
    part = np.empty((len(rows), len(columns)), np.float32)
    needed = np.unique(columns // wide)
    runs = np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
    for strip in np.unique(rows // high):
        mine = np.flatnonzero(rows // high == strip)
        first, last = rows[mine].min(), rows[mine].max() + 1
        for run in runs:
            left, right = run[0] * wide, (run[-1] + 1) * wide
            here = np.flatnonzero((columns >= left) & (columns < right))
            tile = X[first:last, left:right]
            part[np.ix_(mine, here)] = tile[np.ix_(rows[mine] - first, columns[here] - left)]
    return part


def _paths(blocks: Path, start: int) -> tuple[Path, Path]:
    """Where a block keeps its reads outside genes and its X; X comes last, so that where it is, both are."""
    return blocks / f"{start:06d}-outside.npy", blocks / f"{start:06d}.npy"


def _read_block(files: list[Path], column: str, ids: pd.Series, transform: str) -> tuple[np.ndarray, np.ndarray]:
    """Of some files the reads outside genes, with the largest value of the copies on Y behind them, and X."""
    expected, copies = pl.Series(ids.to_numpy()), ids.str.endswith(ON_Y).to_numpy()
    kept = np.flatnonzero(~copies)
    X = np.empty((len(files), len(kept)), np.float32)
    outside = np.empty((len(files), len(OUTSIDE_GENES) + 1))

    def read(i: int) -> None:
        found, values, outside[i, :-1] = read_star(files[i], column)
        if not found.equals(expected):
            raise CohortError(
                f"{files[i]}: its {len(found)} genes are not the {len(expected)} of the other files; expected one gene "
                f"model: remove the manifest, so that all files are of one release, and fetch again."
            )
        outside[i, -1] = values[copies].max(initial=0)
        np.take(values, kept, out=X[i])
        if transform == "log2":
            np.log2(X[i] + np.float32(1), out=X[i])

    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        list(pool.map(read, range(len(files))))
    return outside, X


def _write_whole(target: Path, blocks: Path, obs: pd.DataFrame, genes: pd.DataFrame, uns: dict) -> None:
    """Copy the blocks, a block at a time, into an .h5ad that takes its name when it is whole."""
    copies = genes["id_in_file"].str.endswith(ON_Y)
    var = genes[~copies].set_axis(pd.Index([gene.split(".")[0] for gene in genes["id_in_file"][~copies]]))
    outside = np.empty((len(obs), len(OUTSIDE_GENES) + 1))
    whole = blocks / f"{os.getpid()}.h5ad"  # beside the blocks, which are removed with whatever a kill left there
    with h5py.File(whole, "w") as file:
        chunks = (min(CHUNKS[0], len(obs)), min(CHUNKS[1], len(var)))
        X = file.create_dataset("X", (len(obs), len(var)), np.float32, chunks=chunks)
        X.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in _progress(range(0, len(obs), BLOCK), f"writing {target.name}"):
            outside[start : start + BLOCK], X[start : start + BLOCK] = map(np.load, _paths(blocks, start))
        if copies.any():
            uns["provenance"]["left_out"]["copies on Y of pseudoautosomal genes"] = int(copies.sum())
            uns["provenance"]["transforms"].append(
                f"the copies on Y that were left out reach at most {outside[:, -1].max():g}"
            )
        counts = zip(map(str.lower, OUTSIDE_GENES), outside[:, :-1].T.astype(np.int64), strict=True)
        obs = obs.assign(**dict(counts))
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for part, content in {"obs": obs, "var": var.assign(gene_type=var["gene_type"].astype("category"))}.items():
            anndata.io.write_elem(file, part, content)
        for part in ("layers", "obsm", "varm", "obsp", "varp"):
            anndata.io.write_elem(file, part, {})
        anndata.io.write_elem(file, "uns", uns)
    os.replace(whole, target)


def _placed(name: str, manifest: dict, obs: pd.DataFrame) -> list[Path]:
    """The files in the order of `obs`, each there and as long as GDC says; their md5 is what `fetch` verifies."""
    sizes = {hit["file_id"]: hit["file_size"] for hit in manifest["files"]}
    files = [star_path(file_id) for file_id in obs["file_id"]]
    wrong = [
        file for file, file_id in zip(files, obs["file_id"], strict=True)
        if not file.is_file() or file.stat().st_size != sizes[file_id]
    ]  # fmt: skip
    if wrong:
        raise CohortError(
            f"{name}: {len(wrong)} of {len(files)} files are missing or of another length, the first is {wrong[0]}; "
            f"run `python -m gexlib fetch {name}`, which fetches only those."
        )
    return files


def _check_space(blocks: Path, size: int) -> None:
    """Refuse before the work where the disk cannot hold the blocks that are missing and the whole file."""
    needed = 2 * size - sum(path.stat().st_size for path in blocks.glob("*.npy"))
    free = shutil.disk_usage(blocks).free
    if needed > free:
        raise OSError(
            f"{blocks.parent}: assembly needs {needed / 1e9:.1f} GB for a while, {free / 1e9:.1f} GB are free; free "
            f"some space or set GEXLIB_DATA elsewhere."
        )


def _parse(path: Path, kinds: dict[str, type[pl.DataType]]) -> tuple[list[bytes], pl.DataFrame]:
    """The six lines before the first gene, and the columns asked for, in the order asked."""
    with open(path, "rb") as stream:
        head = [stream.readline(4000).rstrip(b"\r\n") for _ in range(2 + len(OUTSIDE_GENES))]
    columns = head[1].decode(errors="replace").split("\t")
    rows_fit = [row.partition(b"\t")[0].decode(errors="replace") for row in head[2:]] == [*OUTSIDE_GENES]
    if not (head[0].startswith(b"#") and rows_fit and "unstranded" in columns):
        raise CohortError(
            f"{path}: begins with '{head[0][:40].decode(errors='replace')}'; expected a comment, a header and the rows "
            f"{', '.join(OUTSIDE_GENES)} of an augmented STAR count file: remove it and fetch it again."
        )
    lacking = [name for name in kinds if name not in columns]
    if lacking:
        raise CohortError(f"{path}: no column '{lacking[0]}' among {', '.join(columns)}; expected GDC's release 32 on.")
    try:
        table = pl.read_csv(
            path, separator="\t", quote_char=None, skip_lines=1, skip_rows_after_header=len(OUTSIDE_GENES),
            columns=[*kinds], schema_overrides=kinds,
        )  # fmt: skip
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise CohortError(f"{path}: cannot be read ({reason}); remove it and fetch it again.") from None
    return head, table.select([*kinds])


def _key_of(target: Path) -> str:
    """What an assembled file says it was made from; empty where there is no such file."""
    try:
        with h5py.File(target) as file:
            return file["uns/assembled_from"].asstr()[()]
    except (OSError, KeyError):
        return ""


def _progress(steps, what: str) -> Iterator:
    """A bar on stderr; in a log that is no terminal one line every half minute."""
    return tqdm(steps, desc=what, unit="block", mininterval=0.1 if sys.stderr.isatty() else 30, leave=False)
