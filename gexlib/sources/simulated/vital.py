"""Simulated cohorts of cancer patients, alive or dead, with normals of the same patients, for study 05."""

from __future__ import annotations

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd

from gexlib.cohort import make_cohort
from gexlib.sources.simulated.parts import shares_to_counts, stream

TISSUES, VITAL = ["tumour", "normal", "metastasis"], ["alive", "dead"]
OWN = {"normal": 0.1, "metastasis": 0.3}  # correlation with the tumour of the patient
BROAD_SCALE, REST_SCALE = np.array([1, 0.9, 1]), np.array([1, 0.58, 1])  # of a tumour's SD, by tissue
LONGER_FOLLOW_UP = 1.4  # of patients with a normal
SETS, PLANTED_SETS = 50, 3  # gene sets of co-expressed genes, as many as MSigDB's hallmarks; those that carry risk
BROAD_SHARES = (0.104, 0.092, 0.046, 0.031, 0.026, 0.022, 0.018, 0.016, 0.015, 0.012)  # of a tumour gene's variance
BROAD_RISK = (0.60, 0.0, -0.69, 0.0, 0.0, -0.40, 0.0, 0.0, 0.0, 0.0)  # risk by broad factor: the axes found in KIRC
PROGRAMME = 0.4  # correlation of a gene of the prognostic programme with it
MEAN_SHARES = (0, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)  # of genes below MEANS
MEANS = (-4, -2.5, -1.8, -0.25, 2, 4.3, 6.1, 7.55, 8.5, 9.3, 10, 10.8, 11.5, 13.1, 16)  # log2; below 0 reads as zero
SD_MEANS, SDS = (1.5, 3, 5, 7, 9, 11), (1.5, 1.7, 1.6, 1.1, 0.68, 0.6)  # a gene's SD by its mean
PLATE_ALIQUOTS, PLATE_SD = 30, 0.18  # a plate moves a gene by this part of its SD
PLATE_NOISE = 1.3  # SD of the order in which plates were filled, around that of entry into the study


@dataclass(frozen=True)
class Cancer:
    """What was measured on one TCGA cohort; `simulate_vital` names the sources."""

    counts: dict[tuple[str, str, str], int]  # (histology, tissue, vital) -> aliquots
    follow_up: tuple[float, float]  # median days a patient can be followed, SD of their natural logarithm
    age: tuple[float, float, float]  # mean and SD in years, log hazard per SD
    hazard: float  # log hazard per SD of the risk that genes see
    risk: tuple[float, float, float, float]  # shares of that risk: broad factors, gene sets, programme, interaction


def _counts(histology: str, **tissues: tuple[int, int]) -> dict[tuple[str, str, str], int]:
    return {(histology, t, v): k for t, pair in tissues.items() for v, k in zip(VITAL, pair, strict=True)}


CANCERS = {
    "vital": Cancer(
        counts=_counts("BRCA", tumour=(941, 152), normal=(68, 44), metastasis=(4, 3)),
        follow_up=(761, 0.96),
        age=(58.4, 13.2, 0.25),
        hazard=0.5,
        risk=(0.0, 0.45, 0.45, 0.1),
    ),
    "vital_coad": Cancer(
        counts=_counts("COAD", tumour=(221, 64), normal=(24, 17)),
        follow_up=(730, 0.83),
        age=(67.0, 13.0, 0.3),
        hazard=0.77,
        risk=(0.1, 0.4, 0.4, 0.1),
    ),
    "vital_kipan": Cancer(
        counts=_counts("KIRC", tumour=(359, 175), normal=(45, 27))
        | _counts("KIRP", tumour=(247, 44), normal=(25, 7))
        | _counts("KICH", tumour=(56, 10), normal=(21, 4)),
        follow_up=(1186, 1.01),
        age=(59.7, 12.7, 0.45),
        hazard=1.3,
        risk=(0.6, 0.15, 0.15, 0.1),
    ),
}


def simulate_vital(kind: str, n: int, genes: int, seed: int) -> anndata.AnnData:
    """Cancer patients alive or dead, RNA-seq as log2(RSEM+1); `n` counts aliquots, each with its patient's status.

    `vital` has the shape of BRCA, `vital_coad` of COAD, `vital_kipan` of KIPAN. What is planted, and where from:

    - *Aliquots* (study 05, table 1, counts controls and cases). BRCA: 152 of 1,093 tumours, 44 of 112 normals and 3
      of 7 metastases are of patients who died, the 199 cases of the paper; KIPAN: 229 tumours and 38 normals, its
      267. Deaths are those of the TCGA clinical tables; COAD's normals are not in them and have what the tumours
      leave of its 81. More normals than tumours are of the dead, so that tissue alone predicts them: an AUC of .58
      in BRCA.
    - *Follow-up*: the days a patient can be followed are log-normal as those of the living (median 761, 730, 1,186
      days), no gene sees them but by its plate, and they decide more than genes do: the year of diagnosis has an AUC of
      .78, .67 and .74 for vital status, here the days have .76, .73 and .72. Age adds the difference in the
      clinical tables.
    - *Risk that genes see*: the hazard gives the dead and the living of one histology a squared distance of .18 in
      BRCA, .46 in COAD and .90 in KIPAN. Unbiased over the first 50 principal components of tumours it is .21 +-
      .09 (mRNA) and .15 +- .08 (miRNA) in BRCA, .46 +- .13 in COAD and .90 +- .09 in KIRC (miRNA). Of that the
      first ten hold nothing in BRCA, an eighth in COAD and two thirds in KIRC, which is the share of the broad
      factors. Three gene sets of 50 and a programme of 5 % of the genes (correlation .4) halve the rest: taking 20
      components away leaves BRCA's mean squared t at 1.26 (1.00 by chance). A tenth is the product of two sets:
      trees and kernels never gained .02 on ridge.
    - *Tissue*: normals differ by .5 log2 in the median and 1.3 in the root mean square (113 BRCA pairs .51 and
      1.21, 72 KIRC pairs .55 and 1.44). A normal's SD is .72 of a tumour's there. It correlates .1 with the tumour
      of its patient beyond the tissue means (BRCA .11, KIRC .09), a metastasis .3 (BRCA, miRNA, 7 of them).
      Metastases differ half as much as normals do, which is assumed. KIRP and KICH differ from KIRC by 1.1 log2
      (KIRC and KIRP, mRNA).
    - *Genes*: means, zeros and SDs as the 20,531 of UCS and STAD; 0.5 % are zero everywhere. Ten broad factors
      carry the shares of the first ten principal components of 843 BRCA tumours. Plates carry 3 % of a gene's
      variance, as in BRCA and KIRC, and fill by entry, so that they alone have an AUC of .59 to .69 (miRNA of BRCA,
      COAD and KIPAN: .63 to .67). TCGA's plates of pairs, some of which hold almost only the dead, are left out:
      they let normals alone predict vital status (AUC .89).
    """
    var, parts = _genes(kind, genes, seed)
    patients, tumours = _patients(kind, n, parts, seed)
    obs, own = _aliquots(kind, patients, seed)
    scores = stream(kind, "relatives", seed).standard_normal((n, tumours.shape[1]))
    scores[: len(tumours)] = tumours
    X, rng = np.empty((n, genes), np.float32), stream(kind, "noise", seed)
    for row in X:
        row[:] = rng.standard_normal(genes)
    _relatives_resemble(scores, obs["tissue"], own)
    _relatives_resemble(X, obs["tissue"], own)
    plates = stream(kind, "plate effects", seed).standard_normal((obs["plate"].nunique(), genes))
    _express(X, obs, scores, parts | {"plate": plates * parts["plate_sd"]})
    cohort = make_cohort(
        X,
        obs,
        var,
        name=f"simulated:{kind},n={n},genes={genes},seed={seed}",
        unit="log2(RSEM+1)",
        simulated=True,
        source=f"gexlib simulate('{kind}', n={n}, genes={genes}, seed={seed})",
        transforms=["drawn on the log2 scale", "rounded to two decimals"],
    )
    cohort.uns["truth"] = {
        "planted genes": "var['truth_planted']; log2 for one SD of the linear risk in var['truth_effect']",
        "planted sets": "the sets of var['module'] where var['truth_set'] is true",
        "interaction": "the product of two of the planted sets; no gene shows it alone",
    }
    return cohort


def _genes(kind: str, genes: int, seed: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One row a gene with its truth; and the parts of its expression: risk (61,) by factor, log2 (.., genes) else."""
    rng, shares, broad_count = stream(kind, "genes", seed), CANCERS[kind].risk, len(BROAD_SHARES)
    mean = np.interp(rng.random_sample(genes), MEAN_SHARES, MEANS)
    sd = np.interp(mean, SD_MEANS, SDS) * np.exp(0.35 * rng.standard_normal(genes))
    number, expressed = rng.randint(0, SETS, genes), mean > 2
    set_share = np.where(expressed & (rng.random_sample(genes) < 0.6), rng.uniform(0.2, 0.8, genes), 0.0)
    programme, chosen = np.zeros(genes), rng.permutation(np.flatnonzero(expressed))[: int(round(0.05 * genes))]
    programme[chosen] = PROGRAMME * np.where(rng.random_sample(chosen.size) < 0.5, -1.0, 1.0)
    planted_sets, signs = rng.permutation(SETS)[:PLANTED_SETS], np.where(rng.random_sample(PLANTED_SETS) < 0.5, -1, 1)
    risk = np.zeros(broad_count + SETS + 1)
    risk[:broad_count] = np.sqrt(shares[0]) * np.array(BROAD_RISK)
    risk[broad_count + planted_sets] = np.sqrt(shares[1] / PLANTED_SETS) * signs
    risk[-1] = np.sqrt(shares[2])

    rest = sd * np.sqrt(1 - sum(BROAD_SHARES))
    parts = {
        "risk": risk,
        "planted_sets": planted_sets,
        "number": number,
        "mean": np.where(np.isin(np.arange(genes), _constant(rng, expressed)), -99.0, mean),
        "broad": rng.standard_normal((broad_count, genes)) * np.sqrt(BROAD_SHARES)[:, None] * sd,
        "set": rest * np.sqrt(set_share),
        "programme": rest * programme,
        "noise": rest * np.sqrt(1 - set_share - programme**2),
        "tissue": np.stack([np.zeros(genes), _shift(rng, genes, 0.5, 1.1), _shift(rng, genes, 0.25, 1.1)]),
        "histology": np.stack([np.zeros(genes), _shift(rng, genes, 0.45, 1.0), _shift(rng, genes, 0.45, 1.0)]),
        "plate_sd": PLATE_SD * sd,
    }
    effect = (parts["broad"] * risk[:broad_count, None]).sum(axis=0) + parts["programme"] * risk[-1]
    effect += parts["set"] * risk[broad_count + number]
    var = pd.DataFrame(index=[f"SIM{i:05d}" for i in range(1, genes + 1)])
    var["module"] = pd.Categorical([f"SET{i:02d}" for i in number + 1])
    var["truth_set"] = np.isin(number, planted_sets)
    var["truth_planted"] = (var["truth_set"] & (set_share > 0)) | (programme != 0)
    var["truth_effect"] = effect / np.sqrt(1 - shares[3])
    return var, parts


def _constant(rng: np.random.RandomState, expressed: np.ndarray) -> np.ndarray:
    """Numbers of the genes that no aliquot expresses: 0.5 %."""
    return rng.permutation(np.flatnonzero(~expressed))[: int(round(0.005 * expressed.size))]


def _shift(rng: np.random.RandomState, genes: int, median: float, spread: float) -> np.ndarray:
    """Log2 differences of one kind of tissue, either sign, log-normal in size and at most 6."""
    size = np.minimum(median * np.exp(spread * rng.standard_normal(genes)), 6.0)
    return size * np.where(rng.random_sample(genes) < 0.5, -1.0, 1.0)


def _patients(kind: str, n: int, parts: dict[str, np.ndarray], seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """One row a patient; and the factor scores (patients, 61) of each tumour: broad factors, sets, programme.

    Times to death are exponential, their hazard that of the tumour's risk and of age. Whoever dies within the days that
    could be followed is dead; the base hazard, by histology and kind of relative, is the one that gives the counts.
    """
    rng, cancer = stream(kind, "patients", seed), CANCERS[kind]
    patients, deaths = _blocks(dict(zip(cancer.counts, shares_to_counts(cancer.counts, n), strict=True)))
    size = len(patients)
    scores, age = rng.standard_normal((size, len(parts["risk"]))), rng.standard_normal(size)
    one, other = len(BROAD_SHARES) + parts["planted_sets"][:2]
    risk = (scores * parts["risk"]).sum(axis=1) + np.sqrt(cancer.risk[3]) * scores[:, one] * scores[:, other]
    days = cancer.follow_up[0] * np.exp(cancer.follow_up[1] * rng.standard_normal(size))
    days *= np.where(patients["relative"] == "normal", LONGER_FOLLOW_UP, 1.0)
    hazard = np.exp(cancer.hazard * risk + cancer.age[2] * age)
    patients["lived"] = rng.standard_exponential(size) / hazard / days  # death, in parts of the days followed
    for block, dead in deaths.items():
        rows = (patients["block"] == block).to_numpy()
        lived = np.sort(patients.loc[rows, "lived"].to_numpy())
        patients.loc[rows, "lived"] /= lived[dead - 1] if dead else lived[0] / 2
    patients["patient"] = [f"P{number:05d}" for number in rng.permutation(size) + 1]
    patients["vital"] = pd.Categorical(np.where(patients["lived"] <= 1, "dead", "alive"), VITAL, ordered=True)
    patients["age"] = np.clip(cancer.age[0] + cancer.age[1] * age, 18, 90).round().astype(int)
    patients["follow_up_days"] = np.ceil(days * np.minimum(patients["lived"], 1)).astype(int)
    patients["days_possible"] = days
    return patients, scores


def _blocks(counts: dict[tuple[str, str, str], int]) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row a patient: histology, tissue of a second aliquot ("" for none), both as block; and deaths by block."""
    patients, deaths = [], {}
    for histology in dict.fromkeys(histology for histology, *_ in counts):
        left = [counts[histology, "tumour", status] for status in VITAL]
        for relative in ("normal", "metastasis", ""):
            block = f"{histology} {relative}"
            number = [counts.get((histology, relative, status), 0) for status in VITAL] if relative else left
            left = [all_of - some for all_of, some in zip(left, number, strict=True)]
            patients += [(histology, relative, block)] * sum(number)
            deaths |= {block: number[1]} if sum(number) else {}
    return pd.DataFrame(patients, columns=["histology", "relative", "block"]), deaths


def _aliquots(kind: str, patients: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """One row an aliquot: all tumours, then normals, then metastases; and the row of the tumour of its patient.

    Plates are filled by entry into the study, roughly, so that a plate says something of how long one was followed.
    """
    rng = stream(kind, "plates", seed)
    own = [np.arange(len(patients)), *(np.flatnonzero(patients["relative"] == tissue) for tissue in TISSUES[1:])]
    tissue, own = np.repeat(TISSUES, [rows.size for rows in own]), np.concatenate(own)
    obs = patients.iloc[own]
    obs = obs.set_index(obs["patient"] + "-" + pd.Series(tissue, obs.index).str[0].str.upper())
    entry = np.log(obs["days_possible"].to_numpy())
    entry = (entry - entry.mean()) / entry.std() + PLATE_NOISE * rng.standard_normal(own.size)
    plate = np.argsort(np.argsort(entry)) // PLATE_ALIQUOTS
    obs = obs.assign(tissue=pd.Categorical(tissue, TISSUES), plate=pd.Categorical([f"{k + 1:02d}" for k in plate]))
    obs["histology"] = pd.Categorical(obs["histology"], patients["histology"].unique())  # the first is the reference
    return obs[["patient", "tissue", "vital", "age", "follow_up_days", "histology", "plate"]].rename_axis(None), own


def _relatives_resemble(values: np.ndarray, tissue: pd.Series, own: np.ndarray) -> None:
    """Give every second aliquot its correlation with its patient's tumour, in place; rows are independent before."""
    for row in np.flatnonzero(tissue != "tumour"):
        likeness = values.dtype.type(OWN[tissue.iloc[row]])
        values[row] = likeness * values[own[row]] + np.sqrt(1 - likeness**2) * values[row]


def _express(X: np.ndarray, obs: pd.DataFrame, scores: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    """Turn noise into expression, in place and some rows at a time, which bounds memory.

    Products are of single numbers with rows, not of matrices, which would sum in another order on another machine.
    """
    parts = {name: values.astype(np.float32) if values.dtype == float else values for name, values in parts.items()}
    tissue, plate, histology = (obs[column].cat.codes.to_numpy() for column in ("tissue", "plate", "histology"))
    scale, count = REST_SCALE[tissue].astype(np.float32), len(BROAD_SHARES)
    scores = scores * np.where(np.arange(scores.shape[1]) < count, BROAD_SCALE[tissue][:, None], scale[:, None])
    scores = scores.astype(np.float32)
    for row, x in enumerate(X):
        x *= scale[row] * parts["noise"]
        x += scores[row, count:-1][parts["number"]] * parts["set"]
        x += scores[row, -1] * parts["programme"]
        for score, loadings in zip(scores[row], parts["broad"], strict=False):
            x += score * loadings
        x += parts["plate"][plate[row]]
        x += parts["tissue"][tissue[row]]
        if tissue[row] != 1:
            x += parts["histology"][histology[row]]
        x += parts["mean"]
        np.maximum(x, 0, out=x)
        np.round(x, 2, out=x)
