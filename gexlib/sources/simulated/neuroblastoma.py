"""Simulated neuroblastomas of five INSS stages, for study 01."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd

from gexlib.cohort import INSS_STAGES, make_cohort
from gexlib.sources.simulated.parts import planted, shares_to_counts, stream

# What GSE49711 (498 primary neuroblastomas) shows, stage by stage.
INSS_COUNTS = {"1": 121, "2": 78, "3": 63, "4": 183, "4S": 53}
MYCN_AMPLIFIED_SHARE = {"1": 0.02, "2": 0.06, "3": 0.24, "4": 0.36, "4S": 0.08}
AGE_MEDIAN_DAYS = {"1": 300, "2": 372, "3": 385, "4": 1012, "4S": 92}
PROGRESSION = {"1": 0.0, "2": 0.15, "3": 0.27, "4": 1.0, "4S": 0.29}
PROGRESSION_SD = {"1": 0.33, "2": 0.48, "3": 0.37, "4": 0.56, "4S": 0.41}
BROAD_SHARES = (0.15, 0.09, 0.07, 0.05, 0.04)  # of the within-stage variance


def simulate_neuroblastoma(n: int, genes: int, seed: int) -> anndata.AnnData:
    """Neuroblastomas of five INSS stages on an exon array (log2 RMA), with graded and overlapping stage effects.

    What is planted, and where each size comes from:

    - Stage counts, MYCN amplification by stage and ages: the public clinical table of GSE49711 (498 patients).
    - *Progression*, 8 % of genes, median log2 effect 0.4 between stages 1 and 4. Patients sit at a position that is
      continuous and overlaps between stages (means 0, .15, .27, 1, .29 for 1, 2, 3, 4, 4S; SD .33 to .56): the
      positions of the MYCN-normal Validation half of GSE49711 on the axis from stage 1 to 4 of its Training half, where
      the repeatable part of the difference is 0.49 log2 (root mean square) among genes chosen for survival. The grading
      from 4S over 4 to MYCN-amplified is that of Westermann et al. 2008 (Genome Biol 9:R150), 251 primary tumours.
    - *MYCN*, one gene at +4.2 log2 and 5 % of genes around 0.6: GSE49711 has +4.2 for MYCN, +1.8 for ODC1, and 0.75
      (root mean square) between amplified and normal tumours.
    - *4S*, 2 % of genes around 0.25: the repeatable 4S-against-1 difference there. Stages 2 and 3 have no gene of their
      own: they differ from 1 by their position alone.
    - Within a stage a gene's SD is 0.48 log2 in the median, as in GSE49711. Five broad factors (stroma, immune cells
      and the like) carry 40 % of that variance, the shares of its first five principal components within stages; 40
      co-expression modules and noise share the rest. Three array batches are independent of stage.
    """
    var, programmes = _genes(genes, seed)
    obs, factors = _patients(n, seed)
    stage4s, amplified = (obs["inss_stage"] == "4S").to_numpy(), (obs["mycn"] == "amplified").to_numpy()
    X = var["baseline"].to_numpy() + np.outer(factors["position"], var["truth_progression"])
    X += np.outer(amplified, var["truth_mycn"]) + np.outer(stage4s, var["truth_4s"])
    X += programmes["batch"][obs["batch"].cat.codes]
    sd, share = var["within_sd"].to_numpy(), var["module_share"].to_numpy()
    for score, loadings in zip(factors["broad"].T, programmes["broad"], strict=True):  # a matrix product would sum in
        X += np.outer(score, loadings * sd)  # another order on another machine
    sd = sd * np.sqrt(1 - sum(BROAD_SHARES))
    X += sd * np.sqrt(share) * factors["modules"][:, var["module"]]
    X += sd * np.sqrt(1 - share) * stream("neuroblastoma", "noise", seed).standard_normal((n, genes))
    cohort = make_cohort(
        np.clip(X, 1.5, 15.0).round(2),  # the range of a log2 RMA array
        obs,
        var.drop(columns=["baseline", "within_sd", "module_share"]),
        name=f"simulated:neuroblastoma,n={n},genes={genes},seed={seed}",
        unit="log2 RMA",
        simulated=True,
        source=f"gexlib simulate('neuroblastoma', n={n}, genes={genes}, seed={seed})",
        transforms=["drawn on the log2 scale", "rounded to two decimals"],
    )
    cohort.uns["truth"] = {
        "planted genes": "var['truth_planted']; log2 effects in var['truth_progression'], ['truth_mycn'], ['truth_4s']",
        "stage means": "var['truth_mean_<stage>'], log2 against a MYCN-normal tumour at position 0",
        "stages without genes of their own": "2 and 3",
    }
    return cohort


def _genes(genes: int, seed: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One row a gene, with the planted log2 effects; and what broad factors (5, genes) and batches (3, genes) add."""
    rng = stream("neuroblastoma", "genes", seed)
    var = pd.DataFrame(index=[f"SIM{i:05d}" for i in range(1, genes + 1)])
    expressed = rng.random_sample(genes) < 0.6
    high, low = 8.5 + 1.3 * rng.standard_normal(genes), 4.5 + 0.7 * rng.standard_normal(genes)
    var["baseline"] = np.where(expressed, high, low)
    var["within_sd"] = np.clip(0.48 * np.exp(0.5 * rng.standard_normal(genes)), 0.15, 2.0)
    var["module"] = rng.randint(0, 40, genes)
    var["module_share"] = np.where(rng.random_sample(genes) < 0.6, rng.uniform(0.2, 0.8, genes), 0.0)
    broad = rng.standard_normal((5, genes)) * np.sqrt(BROAD_SHARES)[:, None]
    batch = 0.15 * rng.standard_normal((3, genes))
    var["truth_progression"] = planted(rng, genes, 0.08, 0.4)
    mycn = planted(rng, genes, 0.05, 0.6)
    mycn[0] = 4.2
    var["truth_mycn"], var["truth_4s"] = mycn, planted(rng, genes, 0.02, 0.25)
    var["truth_planted"] = (var[["truth_progression", "truth_mycn", "truth_4s"]] != 0).any(axis=1)
    for stage in INSS_STAGES:
        mean = PROGRESSION[stage] * var["truth_progression"] + MYCN_AMPLIFIED_SHARE[stage] * var["truth_mycn"]
        var[f"truth_mean_{stage}"] = mean + (stage == "4S") * var["truth_4s"]
    return var, {"broad": broad, "batch": batch}


def _patients(n: int, seed: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One row a patient; and each one's position (n,), module (n, 40) and broad (n, 5) factors."""
    rng = stream("neuroblastoma", "patients", seed)
    stage = rng.permutation(np.repeat(INSS_STAGES, shares_to_counts(INSS_COUNTS, n)))

    def by_stage(table):
        return np.array([table[s] for s in stage])

    amplified = rng.random_sample(n) < by_stage(MYCN_AMPLIFIED_SHARE)
    position = by_stage(PROGRESSION) + by_stage(PROGRESSION_SD) * rng.standard_normal(n)
    batch = rng.randint(0, 3, n)
    age = by_stage(AGE_MEDIAN_DAYS) * np.exp(0.7 * rng.standard_normal(n))
    age = np.where(stage == "4S", np.minimum(age, 364), age)  # 4S is a disease of infants
    factors = {"position": position, "modules": rng.standard_normal((n, 40)), "broad": rng.standard_normal((n, 5))}
    ids = [f"P{i:05d}" for i in range(1, n + 1)]
    obs = pd.DataFrame({"patient": ids, "inss_stage": pd.Categorical(stage, categories=INSS_STAGES)}, index=ids)
    obs["mycn"] = pd.Categorical(np.where(amplified, "amplified", "normal"), categories=["normal", "amplified"])
    obs["age_days"], obs["batch"] = (
        age.round().astype(int),
        pd.Categorical(batch.astype(str), categories=["0", "1", "2"]),
    )
    return obs, factors
