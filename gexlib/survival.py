"""What an indicator says of survival: log-rank tests, Cox models, and a check that selection has not fooled them.

Study 04 (Smedley et al. 2020, survival analysis of its full paper and R code) tests for each patient's enriched gene
sets whether the enriched live longer. lifelines and statsmodels do the statistics. Days are the unit everywhere.
"""

from __future__ import annotations

from contextlib import suppress
from warnings import catch_warnings

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.exceptions import ConvergenceError
from lifelines.plotting import add_at_risk_counts
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import concordance_index, qth_survival_time
from matplotlib import pyplot as plt
from scipy.stats import fisher_exact
from statsmodels.duration.survfunc import SurvfuncRight, survdiff
from statsmodels.stats.multitest import multipletests

from gexlib.cohort import MISSING, CohortError
from gexlib.evaluate import false_discovery_rate, patient_draws
from gexlib.plots import PALETTE
from gexlib.splits import at_most, grouped_folds

STATUS = {"dead": True, "deceased": True, "1": True, "1.0": True, "true": True,
          "alive": False, "living": False, "0": False, "0.0": False, "false": False}  # fmt: skip
DAYS = {"years": 365.0, "months": 365.0 / 12}  # the published code's year


def follow_up(days: pd.Series, dead: pd.Series) -> pd.DataFrame:
    """Days of follow-up and whether the patient died then, one row a patient; columns days, dead.

    Parameters
    ----------
    days : from diagnosis to death or to the last day known alive; 0 is allowed
    dead : True/False, 1/0 or words such as dead and alive; the index is that of `days`

    Raises
    ------
    CohortError : missing or negative days, missing or unknown status, two indexes, or nobody died
    """
    days, dead = pd.Series(days), pd.Series(dead)
    if not days.index.equals(dead.index):
        raise CohortError(f"days ({len(days)}) and dead ({len(dead)}) have different rows; take both of one table.")
    number = pd.to_numeric(days, errors="coerce").astype(float)
    status = dead.astype(object).map(lambda word: STATUS.get(str(word).strip().lower()))
    for wrong, values, expected in (
        (~np.isfinite(number), days, "days of follow-up that are a number"),
        (number < 0, days, "days of follow-up of zero or more"),
        (status.isna(), dead, "a status of dead or alive (or 1 and 0)"),
    ):
        if wrong.any():
            first = wrong.index[wrong][0]
            raise CohortError(
                f"{wrong.sum()} of {len(days)} patients, the first '{first}' with '{values[wrong].iloc[0]}', lack "
                f"{expected}; correct those rows or leave them out."
            )
    if not status.any():
        raise CohortError(f"none of {len(days)} patients died; expected deaths: is the status the right way round?")
    return pd.DataFrame({"days": number, "dead": status.astype(bool)})


def demographics(obs: pd.DataFrame, age: str = "age", gender: str = "gender", race: str = "race") -> pd.DataFrame:
    """The base of the published Cox models as 0 and 1, NaN where unknown: age at or above the mean, male, non-white.

    Columns that `obs` lacks are left out. The mean is that of `obs`; the published one is of all patients with
    clinical data.
    """
    known = {column: obs[column] for column in (age, gender, race) if column in obs}
    found = pd.DataFrame(index=obs.index)
    if age in known:
        years = pd.to_numeric(known[age], errors="coerce")
        found[f"age >= {years.mean():.1f}"] = (years >= years.mean()).where(years.notna())
    if gender in known:
        found["male"] = known[gender].astype(str).str.lower().map({"male": 1, "female": 0})
    if race in known:
        words = known[race].astype(str).str.lower().str.strip("[] ")
        found["non-white"] = (words != "white").where(~words.isin([*MISSING, "not reported", "not evaluated"]))
    if not known:
        raise CohortError(f"the samples table has none of '{age}', '{gender}' and '{race}'; name its columns.")
    return found.astype(float)


def log_rank_of(indicators: pd.DataFrame, days: pd.Series, dead: pd.Series, least: int = 5) -> pd.DataFrame:
    """A log-rank test of each binary indicator, with Benjamini-Hochberg over all that were tested.

    The published code asks for five enriched patients; that five others are needed as well is ours.

    Parameters
    ----------
    indicators : patients x indicators, 0/1, True/False or categoricals of two; NaN leaves the patient out of that test
    least : an indicator with fewer patients on either side is not tested

    Returns
    -------
    DataFrame, index indicator, columns chi2, p, q, n with, n without, median with, median without (days; NaN where
    half are still alive), by p; ``attrs["left_out"]`` counts the indicators that were not tested
    """
    follow, rows, rare, silent = follow_up(days, dead), {}, 0, 0
    for name, values in _binary(_rows_of(indicators, follow)).items():
        known = values.notna()
        with_it, time, event = values[known] == 1, follow["days"][known], follow["dead"][known]
        if min(with_it.sum(), (~with_it).sum()) < least:
            rare += 1
            continue
        with catch_warnings(action="ignore"):  # no test where nobody died while both sides were at risk
            chi2, p = survdiff(time.to_numpy(), event.to_numpy(), with_it.to_numpy())
        if not np.isfinite(p):
            silent += 1
            continue
        rows[name] = {"chi2": chi2, "p": p, "q": np.nan}
        for word, side in (("with", with_it), ("without", ~with_it)):
            rows[name] |= {f"n {word}": int(side.sum()), f"median {word}": _median(time[side], event[side])}
    columns = ["chi2", "p", "q", "n with", "n without", "median with", "median without"]
    tested = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    if rows:
        tested["q"] = false_discovery_rate(tested["p"])
    tested.attrs["left_out"] = {f"fewer than {least} patients on a side": rare, "no death to compare at": silent}
    return tested.sort_values("p")


def cox(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """A Cox model (Efron's ties), with its table of hazard ratios.

    Parameters
    ----------
    table : one row a patient, with ``days``, ``dead`` and `columns`, numbers or 0/1

    Returns
    -------
    DataFrame, index column, columns hazard ratio, low, high (95 %), p; attrs concordance (in sample), AIC (partial
    likelihood), n, deaths

    Raises
    ------
    CohortError : an absent, missing, constant or collinear column, or one that all or none of the dead share
    """
    follow = follow_up(table["days"], table["dead"])
    absent = [column for column in columns if column not in table]
    if absent or not len(columns):
        raise CohortError(f"cox needs columns of the table; {absent or 'none were named'}.")
    x = _complete(table[list(dict.fromkeys(columns))])
    for place, column in enumerate(x):
        reason = _unusable(x.iloc[:, :place], x[column], follow["dead"])
        if reason:
            raise CohortError(f"'{column}' {reason}; leave it out of the Cox model.")
    fit = _fit(follow, x)
    found = fit.summary[["exp(coef)", "exp(coef) lower 95%", "exp(coef) upper 95%", "p"]]
    found = found.set_axis(["hazard ratio", "low", "high", "p"], axis=1).rename_axis(None)
    found.attrs = {
        "concordance": float(fit.concordance_index_), "AIC": float(fit.AIC_partial_), "n": len(x),
        "deaths": int(follow["dead"].sum()),
    }  # fmt: skip
    return found


def stepwise_cox(
    days: pd.Series, dead: pd.Series, base: pd.DataFrame, candidates: pd.DataFrame, most: int = 10
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Forward and backward selection by AIC from a base that stays, as the published code selects.

    The p-values and the concordance of the final model are optimistic, as the same patients chose its columns:
    `validated_concordance` says by how much.

    Parameters
    ----------
    base, candidates : patients x columns; constant and collinear candidates are never added
    most : no more candidates than these enter, those of the smallest log-rank p (ours, so that the search is finite)

    Returns
    -------
    (path, model): DataFrame with columns change ("start", "+ name" or "- name") and AIC, and the table of `cox`
    """
    follow = follow_up(days, dead)
    base, candidates = _complete(_rows_of(base, follow)), _complete(_binary(_rows_of(candidates, follow)))
    twice = base.columns.intersection(candidates.columns)
    if len(twice):
        raise CohortError(f"'{twice[0]}' is in the base and among the candidates; rename or drop one.")
    if candidates.shape[1] > most:
        candidates = candidates[log_rank_of(candidates, follow["days"], follow["dead"], least=1).index[:most]]
    table = pd.concat([follow, base, candidates], axis=1)
    path, chosen, fit = [("start", cox(table, [*base]).attrs["AIC"])], [], _fit(follow, base)
    while True:
        now = table[[*base, *chosen]]
        trials = {f"- {name}": now.drop(columns=name) for name in chosen}
        for name in candidates.columns.difference(chosen, sort=False):
            if not _unusable(now, candidates[name], follow["dead"]):
                trials[f"+ {name}"] = table[[*now, name]]
        fits = {}
        for change, x in trials.items():
            with suppress(CohortError):  # a candidate without a finite estimate is none
                fits[change] = _fit(follow, x, fit)
        best = min(fits, key=lambda change: fits[change].AIC_partial_, default=None)
        if best is None or fits[best].AIC_partial_ >= path[-1][1] - 1e-6:
            return pd.DataFrame(path, columns=["change", "AIC"]).rename_axis("step"), cox(table, [*now])
        fit = fits[best]
        chosen = [name for name in trials[best] if name not in base]
        path.append((best, fit.AIC_partial_))


def validated_concordance(
    days: pd.Series,
    dead: pd.Series,
    base: pd.DataFrame,
    candidates: pd.DataFrame,
    patients: pd.Series | None = None,
    folds: int = 5,
    most: int = 10,
    seed: int = 0,
    draws: int = 200,
) -> pd.DataFrame:
    """Concordance of the base and of base + `stepwise_cox` on patients who neither chose its columns nor fitted it.

    Patients are split into folds stratified by death; screening, selection and fit see the training part alone. The
    concordance is that within each test fold, averaged over folds.

    Returns
    -------
    DataFrame, index base, base + stepwise and difference; columns in-sample, validated, low, high, n. The interval is
    that of drawing test patients (`draws` bootstraps), not of drawing another training set. ``attrs["chosen"]``
    lists what each fold chose.
    """
    follow = follow_up(days, dead)
    base, candidates = _complete(_rows_of(base, follow)), _complete(_binary(_rows_of(candidates, follow)))
    x, who = base.join(candidates), (follow.index if patients is None else pd.Index(patients)).astype(str).to_numpy()
    folds = at_most(folds, follow["dead"].to_numpy(), who)
    risk, tests, chosen = np.full((2, len(follow)), np.nan), [], []  # rows of risk: base, base + stepwise
    for _, train, test in grouped_folds(follow["dead"], who, folds, seed=seed):
        early = follow.iloc[train]
        _, model = stepwise_cox(early["days"], early["dead"], base.iloc[train], candidates.iloc[train], most)
        for row, names in enumerate((base.columns, model.index)):
            risk[row, test] = _fit(early, x[names].iloc[train]).predict_log_partial_hazard(x[names].iloc[test])
        tests.append(test)
        chosen.append([name for name in model.index if name not in base])

    def validated(weights: np.ndarray) -> np.ndarray:
        drawn = [np.repeat(test, weights[test].astype(int)) for test in tests]
        return np.nanmean([[_concordance(follow.iloc[rows], one[rows]) for rows in drawn] for one in risk], axis=1)

    _, model = stepwise_cox(days, dead, base, candidates, most)
    fitted = [cox(follow.join(base), [*base]).attrs["concordance"], model.attrs["concordance"]]
    values = np.array([fitted, validated(np.ones(len(follow))), *map(validated, patient_draws(who, draws, seed))])
    values = np.column_stack([values, values[:, 1] - values[:, 0]])
    found = pd.DataFrame(values[:2].T, ["base", "base + stepwise", "difference"], ["in-sample", "validated"])
    found["low"], found["high"] = np.nanpercentile(values[2:], [2.5, 97.5], axis=0)
    found["n"] = len(np.unique(who))
    found.attrs["chosen"] = chosen
    return found


def association(traits: pd.DataFrame, indicators: pd.DataFrame) -> pd.DataFrame:
    """Fisher's exact test of every trait against every indicator, with Bonferroni (as published) and BH over all.

    Returns
    -------
    DataFrame with columns trait, indicator, n, odds ratio (of the sample; R gives the conditional one), p, bonferroni,
    q, by p; pairs of which one side is constant are not tested, and counted in ``attrs["left_out"]``
    """
    if not traits.index.equals(indicators.index):
        raise CohortError("traits and indicators have different rows; take both of the same patients, in one order.")
    rows, constant, indicators = [], 0, _binary(indicators)
    for trait, one in _binary(traits).items():
        for indicator, other in indicators.items():
            known = one.notna() & other.notna()
            counts = np.histogram2d(one[known], other[known], bins=2, range=[[0, 1], [0, 1]])[0].astype(int)
            if not (counts.any(axis=0).all() and counts.any(axis=1).all()):
                constant += 1
                continue
            odds, p = fisher_exact(counts)
            rows.append((trait, indicator, int(known.sum()), odds, p))
    tested = pd.DataFrame(rows, columns=["trait", "indicator", "n", "odds ratio", "p"])
    for name, method in (("bonferroni", "bonferroni"), ("q", "fdr_bh")):
        tested[name] = multipletests(tested["p"], method=method)[1] if rows else np.nan
    tested.attrs["left_out"] = {"pairs with a constant side": constant}
    return tested.sort_values("p", ignore_index=True)


def kaplan_meier(
    days: pd.Series,
    dead: pd.Series,
    groups: pd.Series,
    title: str,
    ax: plt.Axes | None = None,
    unit: str = "years",
) -> plt.Axes:
    """Survival of each group with 95 % intervals, the number at risk beneath, and the log-rank p in the title.

    `unit` is years (of 365 days, as published) or months (a twelfth of that). Patients without a group are left out,
    and counted under the axis.
    """
    if unit not in DAYS:
        raise CohortError(f"no unit '{unit}'; expected one of {', '.join(DAYS)}.")
    follow = follow_up(days, dead)
    groups = _rows_of(pd.DataFrame({"group": groups}), follow)["group"]
    known = groups.notna()
    time, event, groups = follow["days"][known] / DAYS[unit], follow["dead"][known], groups[known]
    ax = ax or plt.subplots(figsize=(5.4, 3.6))[1]
    fitters, names = [], groups.cat.categories if hasattr(groups, "cat") else sorted(groups.unique())
    names = [name for name in names if (groups == name).any()]
    for i, name in enumerate(names):
        inside = groups == name
        label = f"{name} (n = {inside.sum()}, {event[inside].sum()} died)"
        fitters.append(KaplanMeierFitter(label=label).fit(time[inside], event[inside]))
        fitters[-1].plot_survival_function(ax=ax, color=PALETTE[i % len(PALETTE)], ci_alpha=0.15)
    note = f"; {(~known).sum()} without a group" if (~known).any() else ""
    ax.set(xlabel=f"{unit} of {DAYS[unit]:.4g} days{note}", ylabel="share alive", ylim=(0, 1.02), xlim=(0, None))
    if len(fitters) > 1:
        title += f"\nlog-rank p = {multivariate_logrank_test(time, groups.astype(str), event).p_value:.2g}"
    ax.set_title(title)
    ax.legend(fontsize=8)
    return add_at_risk_counts(
        *fitters, labels=list(map(str, names)), rows_to_show=["At risk"], ax=ax, fig=ax.figure, fontsize=8, ypos=-0.45
    )


def _median(days: pd.Series, dead: pd.Series) -> float:
    """The first day on which no more than half are alive, NaN where more are to the end."""
    curve = SurvfuncRight(days.to_numpy(), dead.to_numpy())  # as lifelines counts, in a hundredth of its time
    alive = pd.Series(curve.surv_prob, curve.surv_times).round(12)
    return qth_survival_time(0.5, alive) if (alive <= 0.5).any() else np.nan


def _rows_of(frame: pd.DataFrame, follow: pd.DataFrame) -> pd.DataFrame:
    if not frame.index.equals(follow.index):
        raise CohortError(
            f"the table of {frame.shape[1]} columns (first '{frame.columns[0]}') has other rows than the follow-up of "
            f"{len(follow)} patients; take both of the same patients, in one order."
        )
    return frame


def _complete(x: pd.DataFrame) -> pd.DataFrame:
    """The columns as numbers, none of them missing."""
    numbers = x.apply(lambda values: pd.to_numeric(values.astype(object), errors="coerce")).astype(float)
    for column in numbers.columns[numbers.isna().any()]:
        empty = numbers[column].isna()
        raise CohortError(
            f"'{column}' is no number for {empty.sum()} of {len(x)} patients, the first '{x.index[empty][0]}' with "
            f"'{x[column][empty].iloc[0]}'; make it 0 and 1, or leave those rows out."
        )
    return numbers


def _binary(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of two values as 0, 1 and NaN; of a categorical the second category is 1."""
    found = {}
    for name, values in frame.items():
        if isinstance(values.dtype, pd.CategoricalDtype) and len(values.cat.categories) == 2:
            found[name] = values.cat.codes.astype(float).where(values.notna())
            continue
        found[name] = pd.to_numeric(values.astype(object), errors="coerce").astype(float)
        wrong = values.notna() & ~found[name].isin([0, 1])
        if wrong.any():
            raise CohortError(
                f"'{name}' holds '{values[wrong].iloc[0]}' for '{values.index[wrong][0]}'; expected 0 and 1, True and "
                f"False, or a categorical of two."
            )
    return pd.DataFrame(found, frame.index)


def _unusable(others: pd.DataFrame, values: pd.Series, dead: pd.Series) -> str:
    """Why a Cox model cannot take this column beside the others; empty where it can."""
    if values.nunique() < 2:
        return f"is constant over all {len(values)} patients"
    if values[dead].nunique() < 2:
        return f"is {values[dead].iloc[0]:g} for all who died, so that its hazard ratio has no limit"
    x = others.assign(**{"the column": values}).astype(float)
    x = (x - x.mean()) / x.std()
    if np.linalg.matrix_rank(x.to_numpy(), tol=1e-6 * np.sqrt(len(x))) < x.shape[1]:
        return "is collinear with " + ", ".join(f"'{name}'" for name in others)
    return ""


def _fit(follow: pd.DataFrame, x: pd.DataFrame, near: CoxPHFitter | None = None) -> CoxPHFitter:
    """A Cox model; the search starts from the coefficients of a model `near` by, which halves its time."""
    start = None if near is None else near.params_.reindex(x.columns).fillna(0).to_numpy()
    try:
        with catch_warnings(action="ignore"):  # wide intervals say what lifelines warns of
            return CoxPHFitter().fit(follow.join(x), "days", "dead", initial_point=start, batch_mode=False)
    except ConvergenceError as error:
        raise CohortError(f"the Cox model of {', '.join(x)} does not converge; leave a column out.") from error


def _concordance(follow: pd.DataFrame, risk: np.ndarray) -> float:
    try:
        return concordance_index(follow["days"], -risk, follow["dead"])
    except ZeroDivisionError:  # no pair whose order is known
        return np.nan
