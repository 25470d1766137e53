"""AnnData files: cohorts of our own contract, and ordinary ones brought to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from gexlib.cohort import CohortError, check_cohort, make_cohort
from gexlib.files import sha256_of, written_whole
from gexlib.sources.matrix import gene_table, looks_like_genes, to_scale, with_patients, with_plates, with_stages

FACTS = ("source", "release", "licence", "note")  # what an ordinary file may say of itself in `uns`


def load(
    name: str, samples: str | None = None, transform: str | None = None, unit: str | None = None
) -> anndata.AnnData:
    """Open an .h5ad file, samples x genes, as a cohort.

    A file that `save_cohort` wrote comes back as it was. Of an ordinary one X, obs and var are read; unit, source,
    release, licence and note are taken from `uns` where it has them.

    Parameters
    ----------
    transform : ``log2`` takes log2(x + 1); ``none`` keeps linear values, whose unit must then be known
    unit : the scale, where ``uns["unit"]`` does not say it

    Raises
    ------
    CohortError : no AnnData file, no X, transposed, or the contract is broken
    """
    path = Path(name)
    if samples:
        raise CohortError(f"{name}: an .h5ad file holds its samples table (obs); leave samples={samples!r} out.")
    adata = _read(path)
    X = adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)
    values = pd.DataFrame(X.astype(np.float32), adata.obs_names.astype(str), adata.var_names.astype(str))
    if looks_like_genes(values.index) and not looks_like_genes(values.columns):
        found = f"looks transposed, its first sample is called '{values.index[0]}'"
        raise CohortError(f"{name}: {found}; expected samples x genes: save the transposed AnnData (adata.T).")
    values, scale, notes = to_scale(values, transform, unit or str(adata.uns.get("unit", "")), name)
    genes, (obs, who) = gene_table(values.columns), with_patients(adata.obs)
    obs, where = with_plates(obs)
    past = adata.uns.get("provenance")
    if isinstance(past, Mapping) and "source" in past:
        files = dict(zip(_words(past, "files"), _words(past, "sha256"), strict=True))
    else:
        past = {"source": f"AnnData file {path.name}"} | {key: adata.uns[key] for key in FACTS if key in adata.uns}
        files = {path.name: sha256_of(path)}
    note = [f"note of the source: {past['note']}"] if "note" in past else []
    unread = [f"not read: {part}" for part in ("layers", "obsm", "varm", "raw") if getattr(adata, part)]
    cohort = make_cohort(
        values.to_numpy(), obs, adata.var.set_axis(genes.index).assign(**genes), name=name, unit=scale,
        source=str(past["source"]), release=str(past.get("release", "")), licence=str(past.get("licence", "")),
        files=files, transforms=[*_words(past, "transforms"), *note, *notes, *who, *where, *unread],
        left_out=past.get("left_out"), simulated=adata.uns.get("simulated", False),
    )  # fmt: skip
    cohort.uns = adata.uns | cohort.uns
    return with_stages(cohort)


def save_cohort(cohort: anndata.AnnData, path: str | Path) -> None:
    """Write a cohort as .h5ad, whole or not at all.

    Raises
    ------
    CohortError : the cohort breaks the contract
    OSError : the disk is full or the folder cannot be written; a former file is then as it was
    """
    check_cohort(cohort)
    # HDF5 is built in memory: writing it straight to a full disk crashes the process inside the HDF5 library
    with h5py.File("cohort", "w", driver="core", backing_store=False) as image:
        anndata.io.write_elem(image, "/", cohort, dataset_kwargs={"compression": "gzip"})
        image.flush()
        content = image.id.get_file_image()
    try:
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        found = f"not written ({error.strerror or error}), and a former file is as it was"
        raise OSError(f"{path}: {found}; free some space or name another folder.") from error


def _read(path: Path) -> anndata.AnnData:
    if not path.is_file() or not h5py.is_hdf5(path):
        raise CohortError(f"{path}: not an HDF5 file, or one cut off; expected AnnData as write_h5ad saves it.")
    try:
        found = anndata.read_h5ad(path)
    except Exception as error:  # anndata passes on whatever h5py, numpy or pandas make of a foreign layout
        reason = str(error).splitlines()[0]
        raise CohortError(f"{path}: not a readable AnnData file ({reason}); write it with write_h5ad.") from error
    if found.X is None or min(found.shape) == 0:
        raise CohortError(f"{path}: X is empty ({found.n_obs} x {found.n_vars}); expected the expression in X.")
    return found


def _words(facts: Mapping, key: str) -> list[str]:
    """A list of text, which HDF5 gives back as an array."""
    return [str(word) for word in np.atleast_1d(facts.get(key, []))]
