"""The cohort contract: an AnnData that keeps promises, and the check that says which one is broken.

A cohort is samples x genes. `X` is float32 without NaN or inf; sample and gene ids are unique; `obs["patient"]` says
which samples belong together; `uns["unit"]` says the scale and `uns["provenance"]` where the numbers came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import anndata
import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from gexlib.words import nearest

LARGEST_LOG2 = 50.0  # log2 expression of any assay stays far below; linear intensities and counts pass it
ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}(\.\d+)?$")

INSS_STAGES = ("1", "2", "3", "4", "4S")
INSS_SPELLINGS = {  # stage 2 is at times split into 2A and 2B
    f"{prefix}{written}".lower(): stage
    for written, stage in {**dict(zip(INSS_STAGES, INSS_STAGES, strict=True)), "2A": "2", "2B": "2"}.items()
    for prefix in ("", "st", "stage ", "inss ")
}
MISSING = frozenset({"", "na", "n/a", "nan", "none", "unknown", "not available", "--", "."})


class CohortError(ValueError):
    """Input that breaks the cohort contract. The message names the place, what was found and what to do."""


def make_cohort(
    X: np.ndarray,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    *,
    name: str,
    unit: str,
    source: str,
    release: str = "",
    licence: str = "",
    files: Mapping[str, str] | None = None,
    transforms: Iterable[str] = (),
    left_out: Mapping[str, int] | None = None,
    simulated: bool = False,
) -> anndata.AnnData:
    """Build a cohort from its parts and check it.

    Parameters
    ----------
    X : array, samples x genes, in `unit`
    obs, var : tables indexed by sample id and by gene id; `obs["patient"]` is set to the sample id where it is absent
    name : the name that `load_cohort` was given
    unit : the scale, such as ``log2(FPKM+1)``, ``log2 RMA`` or ``z``
    source, release, licence : where the numbers are from
    files : file name -> sha256
    transforms : what was done to the values, in order
    left_out : reason -> how many samples or genes were left out for it
    simulated : True for data that no assay has measured

    Returns
    -------
    anndata.AnnData that passes `check_cohort`

    Raises
    ------
    CohortError : a promise of the contract is broken
    """
    transforms = list(transforms)
    if "patient" not in obs:
        obs = obs.assign(patient=obs.index.astype(str))
        transforms.append("patient set to the sample id: the source names no patients")
    obs, var = obs.set_axis(obs.index.astype(str)), var.set_axis(var.index.astype(str))
    _check_ids(obs.index, var.index, name)
    _check_patients(obs, name)
    obs["patient"] = obs["patient"].astype(str)
    cohort = anndata.AnnData(X=np.asarray(X, dtype=np.float32), obs=obs, var=var)
    files = dict(files or {})
    cohort.uns.update(
        cohort=name,
        unit=unit,
        simulated=bool(simulated),
        provenance={
            "source": source,
            "release": release,
            "licence": licence,
            "files": list(files),
            "sha256": list(files.values()),
            "transforms": transforms,
            "left_out": {reason: int(count) for reason, count in (left_out or {}).items() if count},
        },
    )
    return check_cohort(cohort)


def check_cohort(cohort: anndata.AnnData, label: str | None = None) -> anndata.AnnData:
    """Return the cohort unchanged when it keeps every promise of the contract.

    Parameters
    ----------
    cohort : samples x genes
    label : a column of `obs` that a study wants to predict; checked when given

    Raises
    ------
    CohortError : names the cohort, the row or column, what was found, what was expected and what to do
    """
    where = str(cohort.uns.get("cohort", "cohort"))
    if cohort.n_obs == 0 or cohort.n_vars == 0:
        raise CohortError(f"{where}: {cohort.n_obs} samples x {cohort.n_vars} genes; expected at least one of each.")
    _check_ids(cohort.obs_names, cohort.var_names, where)
    _check_patients(cohort.obs, where)
    _check_values(cohort, where)
    for key in ("unit", "provenance"):
        if key not in cohort.uns:
            raise CohortError(
                f"{where}: uns has no '{key}'; open the file with load_cohort or build it with make_cohort."
            )
    if label is not None:
        label_of(cohort, label)
    return cohort


def _check_ids(samples: pd.Index, genes: pd.Index, where: str) -> None:
    for kind, ids in (("sample", samples), ("gene", genes)):
        twice = ids[ids.duplicated()].unique()
        if len(twice):
            raise CohortError(
                f"{where}: {len(twice)} duplicated {kind} ids, the first is '{twice[0]}'; expected unique ids: "
                f"rename them, or average or drop the copies before loading."
            )
    ensembl = genes.str.match(ENSEMBL)
    if 0 < ensembl.sum() < len(genes):
        raise CohortError(
            f"{where}: gene ids mix {ensembl.sum()} Ensembl ids (first '{genes[ensembl][0]}') with "
            f"{(~ensembl).sum()} others (first '{genes[~ensembl][0]}'); expected one kind: map them to one."
        )


def _check_patients(obs: pd.DataFrame, where: str) -> None:
    if "patient" not in obs:
        raise CohortError(f"{where}: obs has no column 'patient'; add one (the sample id where patients are unknown).")
    missing = obs["patient"].isna()
    if missing.any():
        raise CohortError(
            f"{where}: 'patient' is missing for {missing.sum()} of {len(obs)} samples, the first is "
            f"'{obs.index[missing][0]}'; name one for every sample, the sample id for a lone one."
        )


def _check_values(cohort: anndata.AnnData, where: str) -> None:
    X, unit = cohort.X, str(cohort.uns.get("unit", ""))
    if not isinstance(X, np.ndarray) or X.dtype != np.float32:
        found = f"{type(X).__name__} of {getattr(X, 'dtype', '?')}"
        raise CohortError(f"{where}: X is a {found}; expected a dense float32 array: open the file with load_cohort.")
    bad = ~np.isfinite(X)
    if bad.any():
        row, column = np.unravel_index(int(bad.argmax()), bad.shape)
        raise CohortError(
            f"{where}: {bad.sum()} values are NaN or infinite, the first at sample '{cohort.obs_names[row]}', gene "
            f"'{cohort.var_names[column]}'; expected finite numbers: drop those genes or impute them before loading."
        )
    low, high = X.min(axis=0), X.max(axis=0)
    if cohort.n_obs > 1 and np.array_equal(low, high):
        raise CohortError(f"{where}: every gene is constant over all {cohort.n_obs} samples; is this the right file?")
    if unit.startswith("log2") and high.max() > LARGEST_LOG2:
        gene = cohort.var_names[int(high.argmax())]
        raise CohortError(
            f"{where}: the unit says '{unit}' but gene '{gene}' reaches {high.max():g}; values above "
            f"{LARGEST_LOG2:g} look linear: pass transform=log2."
        )
    if re.fullmatch(r"log2\s*\(.*\+\s*1\)", unit) and low.min() < 0:
        gene = cohort.var_names[int(low.argmin())]
        raise CohortError(
            f"{where}: gene '{gene}' falls to {low.min():g}, but '{unit}' cannot be negative; say the right unit, or "
            f"pass transform=none if the values are centred."
        )


def column_of(cohort: anndata.AnnData, column: str) -> pd.Series:
    """A column of the samples table.

    Raises
    ------
    CohortError : there is none of that name; the nearest ones are named
    """
    if column not in cohort.obs:
        where, near = cohort.uns.get("cohort", "cohort"), nearest(column, cohort.obs.columns)
        raise CohortError(f"{where}: no column '{column}' in the samples table ({near}).")
    return cohort.obs[column]


def label_of(cohort: anndata.AnnData, column: str) -> pd.Series:
    """The categorical label `column` of every sample, without unused categories.

    Raises
    ------
    CohortError : the column is absent, has missing values, or holds fewer than two classes
    """
    where = str(cohort.uns.get("cohort", "cohort"))
    values = column_of(cohort, column)
    if values.isna().any():
        raise CohortError(
            f"{where}: '{column}' is missing for {int(values.isna().sum())} of {cohort.n_obs} samples, the first is "
            f"'{values.index[values.isna()][0]}'; drop them with drop_unlabelled(cohort, '{column}')."
        )
    if not isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(str).astype("category")
    values = values.cat.remove_unused_categories()
    if len(values.cat.categories) < 2:
        raise CohortError(
            f"{where}: '{column}' holds the single class '{values.cat.categories[0]}'; a classifier needs two or more."
        )
    return values


def set_inss(cohort: anndata.AnnData, source: str, column: str = "inss_stage") -> anndata.AnnData:
    """Write INSS stages as the ordered categorical `obs[column]` (1, 2, 3, 4, 4S), read from `obs[source]`.

    Spellings of the public series (``st4s``, ``4S``, ``stage 4``) are understood; ``NA`` and its kin become missing.

    Raises
    ------
    CohortError : the source column is absent or a value is no INSS stage
    """
    where = str(cohort.uns.get("cohort", "cohort"))
    stages = []
    for sample, value in column_of(cohort, source).astype(object).items():
        word = "" if pd.isna(value) else str(value).strip().lower()
        if word not in MISSING and word not in INSS_SPELLINGS:
            raise CohortError(
                f"{where}: sample '{sample}' has the stage '{value}' in '{source}'; expected one of "
                f"{', '.join(INSS_STAGES)} or NA: correct the samples table."
            )
        stages.append(INSS_SPELLINGS.get(word))
    cohort.obs[column] = pd.Categorical(stages, categories=list(INSS_STAGES))
    return cohort


def drop_unlabelled(cohort: anndata.AnnData, column: str) -> anndata.AnnData:
    """The samples whose label is known; how many were left out is counted in provenance."""
    where = str(cohort.uns.get("cohort", "cohort"))
    known = column_of(cohort, column).notna().to_numpy()
    if known.all():
        return cohort
    kept = cohort[known].copy()
    if kept.n_obs == 0:
        raise CohortError(f"{where}: '{column}' is missing for all {cohort.n_obs} samples; is it the right column?")
    note_left_out(kept, f"samples without '{column}'", int((~known).sum()))
    return kept


def keep_samples(cohort: anndata.AnnData, condition: str) -> anndata.AnnData:
    """The samples that meet a condition on the samples table, such as ``cohort == "BRCA"``; the others are counted.

    The condition becomes part of the cohort's name, so that titles and results tell one part from another.

    Raises
    ------
    CohortError : the condition cannot be read, or no sample meets it
    """
    if not condition:
        return cohort
    where = str(cohort.uns.get("cohort", "cohort"))
    met = meets(cohort, condition)
    if not met.any():
        raise CohortError(f"{where}: no sample meets {condition!r}; look at the values of the columns it names.")
    kept = cohort[met].copy()
    kept.uns["cohort"] = f"{where}, {condition}"
    note_left_out(kept, f"samples without {condition}", int((~met).sum()))
    return kept


def meets(cohort: anndata.AnnData, condition: str) -> np.ndarray:
    """Which samples meet a condition in pandas' query language, (samples,) bool; all of them where it is empty.

    Raises
    ------
    CohortError : the condition cannot be read
    """
    if not condition:
        return np.ones(cohort.n_obs, dtype=bool)
    try:
        return cohort.obs.index.isin(cohort.obs.query(condition).index)
    except Exception as error:  # whatever pandas makes of a misspelt condition
        raise CohortError(
            f"{cohort.uns.get('cohort', 'cohort')}: cannot read the condition {condition!r} ({error}); "
            f"columns of the samples table: {', '.join(map(str, cohort.obs.columns))}."
        ) from None


def beside(cohort: anndata.AnnData, other: anndata.AnnData, label: str, other_label: str) -> anndata.AnnData:
    """The samples of a cohort, then the patients of another who are new and of its classes; on their shared genes.

    Each cohort is z-scored by its own means and SDs, which needs no label: their values may be on other scales.

    Returns
    -------
    AnnData with ``obs["patient"]`` and ``obs[label]``, a categorical with the classes of the first

    Raises
    ------
    CohortError : a column is absent, or no gene or no patient is left
    """
    kinds, others = label_of(cohort, label), column_of(other, other_label).astype(object)
    new = (~other.obs["patient"].isin(cohort.obs["patient"]) & others.isin(kinds.cat.categories)).to_numpy()
    genes = cohort.var_names.intersection(other.var_names)
    if not new.any() or not len(genes):
        raise CohortError(
            f"{other.uns.get('cohort', 'the other cohort')}: {new.sum()} new patients of the classes "
            f"{', '.join(kinds.cat.categories)} in '{other_label}', {len(genes)} shared genes; expected some of each."
        )
    z = [StandardScaler().fit_transform(part[:, genes].X) for part in (cohort, other[new])]
    classes = pd.Categorical([*kinds, *others[new]], kinds.cat.categories)
    patients = [*cohort.obs["patient"], *other.obs["patient"][new]]
    obs = pd.DataFrame({"patient": patients, label: classes}, [*cohort.obs_names, *other.obs_names[new]])
    return anndata.AnnData(np.vstack(z), obs, pd.DataFrame(index=genes))


def unless_absent(cohort: anndata.AnnData, given: str, own: str) -> str:
    """A column or condition as given; "" where it is a notebook's `own` default and the samples table lacks the column.

    What somebody names must be there; what a notebook names for its own cohort need not be in another's. Provenance
    says so.
    """
    column = own.partition(" ")[0]
    if given != own or column in cohort.obs:
        return given
    note_transform(cohort, f"{own} not asked: the samples table has no column '{column}'")
    return ""


def case_of(cohort: anndata.AnnData, label: str, given: str, own: str) -> str:
    """The class of `label` that counts as the case: as given, or the rarer of two where a notebook's `own` is no class.

    Raises
    ------
    CohortError : no such class, and it is not for the notebook to choose
    """
    counts = label_of(cohort, label).astype(str).value_counts()
    if given in counts.index:
        return given
    if given != own or len(counts) > 2:
        raise CohortError(
            f"{cohort.uns.get('cohort', 'cohort')}: '{label}' holds no '{given}' to be the case "
            f"({nearest(given, counts.index)}); name one of its classes as case."
        )
    case = max(counts.index, key=lambda name: (-counts[name], name))
    note_transform(cohort, f"'{case}', the rarer class of '{label}', taken for the case")
    return case


def note_transform(cohort: anndata.AnnData, line: str) -> None:
    """Add a line, once, to what provenance says was done."""
    provenance = cohort.uns["provenance"]
    provenance["transforms"] = [*dict.fromkeys([*map(str, provenance.get("transforms", [])), line])]


def note_left_out(cohort: anndata.AnnData, reason: str, count: int) -> None:
    """Count samples or genes that were left out, so that nothing is dropped silently."""
    left_out = cohort.uns["provenance"].setdefault("left_out", {})
    left_out[reason] = int(left_out.get(reason, 0)) + int(count)


def describe_cohort(cohort: anndata.AnnData, label: str | None = None) -> pd.Series:
    """One column that tells a reader what the cohort is: size, unit, source, transforms, what was left out."""
    provenance = cohort.uns["provenance"]
    facts = {
        "cohort": cohort.uns["cohort"] + (" (simulated)" if cohort.uns["simulated"] else ""),
        "samples": cohort.n_obs,
        "patients": cohort.obs["patient"].nunique(),
        "genes": cohort.n_vars,
        "unit": cohort.uns["unit"],
        "source": provenance["source"],
        "transforms": "; ".join(map(str, provenance.get("transforms", []))) or "none",
        "left out": "; ".join(f"{n} {why}" for why, n in provenance.get("left_out", {}).items()) or "nothing",
    }
    if label is not None:
        facts[label] = ", ".join(f"{k}: {n}" for k, n in label_of(cohort, label).value_counts(sort=False).items())
    return pd.Series(facts, name="")
