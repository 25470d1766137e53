"""Prepared public cohorts: .h5ad files in the folder GEXLIB_REAL_DATA. data/README.md says where each comes from."""

from __future__ import annotations

import os
from pathlib import Path

import anndata

from gexlib.cohort import CohortError
from gexlib.words import nearest


def load(
    name: str, samples: str | None = None, transform: str | None = None, unit: str | None = None
) -> anndata.AnnData:
    """Open ``real:NAME``, the file NAME.h5ad under GEXLIB_REAL_DATA.

    Parameters
    ----------
    transform, unit : as for any .h5ad file

    Raises
    ------
    CohortError : GEXLIB_REAL_DATA is not set or is no folder, there is no such file, or it breaks the contract
    """
    from gexlib.sources import h5ad

    folder = os.environ.get("GEXLIB_REAL_DATA")
    if not folder:
        raise CohortError(
            f"{name}: GEXLIB_REAL_DATA is not set; set it to the folder of the prepared .h5ad files "
            f"(data/README.md says how to get them)."
        )
    if not Path(folder).is_dir():
        raise CohortError(f"{name}: GEXLIB_REAL_DATA is '{folder}', which is no folder; see data/README.md.")
    wanted, known = name.removeprefix("real:"), prepared()
    if wanted not in known:
        raise CohortError(f"{name}: no {wanted}.h5ad under GEXLIB_REAL_DATA ({nearest(wanted, known)}).")
    return h5ad.load(str(Path(folder) / f"{wanted}.h5ad"), samples=samples, transform=transform, unit=unit)


def prepared() -> list[str]:
    """The names of the prepared cohorts that are there; none where GEXLIB_REAL_DATA is not set."""
    folder = os.environ.get("GEXLIB_REAL_DATA")
    return sorted(path.stem for path in Path(folder).glob("*.h5ad")) if folder else []
