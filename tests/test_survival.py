"""Survival: against lifelines on its own data sets and cases worked by hand; planted effects found, chance not."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.datasets import load_rossi, load_waltons
from lifelines.statistics import logrank_test
from matplotlib import pyplot as plt

from gexlib import CohortError, survival


def simulated(n, seed, candidates=6, effects=()):
    """Exponential survival, a sixth censored; candidate i multiplies the hazard by exp(effects[i])."""
    rng = np.random.default_rng(seed)
    index = [f"P{i:03d}" for i in range(n)]
    x = pd.DataFrame(rng.random((n, candidates)) < 0.4, index, [f"set {i}" for i in range(candidates)])
    base = pd.DataFrame({"old": rng.random(n) < 0.5, "male": rng.random(n) < 0.6}, index)
    log_hazard = 0.6 * base["old"] + sum(effect * x[f"set {i}"] for i, effect in enumerate(effects))
    death, last = rng.exponential(400 * np.exp(-log_hazard)), rng.exponential(2000, n)
    days = pd.Series(np.minimum(death, last).round() + 1, index)
    return days, pd.Series(death <= last, index), base, x


def test_a_log_rank_test_worked_by_hand():
    # deaths on days 1 and 2 with it, 3 and 4 without: observed 2, expected 1/2 + 1/3, variance 1/4 + 2/9
    found = survival.log_rank_of(pd.DataFrame({"set": [1, 1, 0, 0]}), pd.Series([1, 2, 3, 4]), pd.Series([1] * 4), 2)
    assert found.loc["set", "chi2"] == pytest.approx((7 / 6) ** 2 / (17 / 36))
    assert found.loc["set", ["median with", "median without"]].tolist() == [1, 3]


def test_the_log_rank_test_is_that_of_lifelines():
    mice = load_waltons()
    shorter = mice["group"] == "miR-137"
    found = survival.log_rank_of(pd.DataFrame({"miR-137": shorter}), mice["T"], mice["E"]).loc["miR-137"]
    expected = logrank_test(mice["T"][shorter], mice["T"][~shorter], mice["E"][shorter], mice["E"][~shorter])
    assert found["chi2"] == pytest.approx(expected.test_statistic)
    assert found["p"] == pytest.approx(expected.p_value) == found["q"]
    assert found[["median with", "median without"]].tolist() == [
        KaplanMeierFitter().fit(mice["T"][side], mice["E"][side]).median_survival_time_ for side in (shorter, ~shorter)
    ]
    assert found[["n with", "n without"]].tolist() == [34, 129]


def test_a_planted_effect_is_found_among_fifty_indicators():
    days, dead, _, x = simulated(150, seed=1, candidates=50, effects=(1.0,))
    found = survival.log_rank_of(x, days, dead)
    assert list(found.index[found["q"] < 0.05]) == ["set 0"]
    assert found.loc["set 0", "median with"] < found.loc["set 0", "median without"]


def test_without_any_effect_benjamini_hochberg_finds_something_in_one_of_twenty_studies():
    studies, alarms = 60, []
    for seed in range(studies):
        days, dead, _, x = simulated(60, seed, candidates=8)
        alarms.append(survival.log_rank_of(x, days, dead)["q"].min() < 0.05)
    assert sum(alarms) <= studies * 0.05 + 3 * np.sqrt(studies * 0.05 * 0.95)  # three standard deviations allowed


def test_indicators_of_too_few_patients_are_left_out_and_counted():
    days, dead, _, x = simulated(30, seed=0, candidates=2)
    x = x.assign(rare=[True] * 4 + [False] * 26, common=[True] * 26 + [False] * 4, nobody=False)
    found = survival.log_rank_of(x, days, dead, least=5)
    assert sorted(found.index) == ["set 0", "set 1"]
    assert found.attrs["left_out"] == {"fewer than 5 patients on a side": 3, "no death to compare at": 0}
    assert survival.log_rank_of(x[["nobody"]], days, dead).empty


def test_a_patient_whose_indicator_is_unknown_is_left_out_of_that_test_alone():
    days, dead, _, x = simulated(40, seed=0, candidates=2)
    x = x.astype(object)
    x.iloc[:10, 0] = np.nan
    found = survival.log_rank_of(x, days, dead)
    assert found[["n with", "n without"]].sum(axis=1)[["set 0", "set 1"]].tolist() == [30, 40]
    assert found.loc["set 0", "p"] == pytest.approx(
        survival.log_rank_of(x.iloc[10:, :1], days[10:], dead[10:])["p"].iloc[0]
    )


def test_the_cox_model_of_the_recidivism_data_is_the_documented_one():
    rossi = load_rossi().rename(columns={"week": "days", "arrest": "dead"})
    found = survival.cox(rossi, ["fin", "age", "race", "wexp", "mar", "paro", "prio"])
    assert found["hazard ratio"].round(2).tolist() == [0.68, 0.94, 1.37, 0.86, 0.65, 0.92, 1.10]
    assert found.loc["fin", ["low", "high"]].round(2).tolist() == [0.47, 1.00]
    assert (round(found.attrs["concordance"], 2), round(found.attrs["AIC"], 2)) == (0.64, 1331.50)
    assert (found.attrs["n"], found.attrs["deaths"]) == (432, 114)


@pytest.mark.parametrize(
    "column, says",
    [
        ([1] * 40, "'x' is constant over all 40 patients"),
        ("old", "'x' is collinear with 'old', 'male'"),
        ("dead", "'x' is 1 for all who died, so that its hazard ratio has no limit"),
        ([None] + [0, 1] * 19 + [1], "'x' is no number for 1 of 40 patients, the first 'P000' with 'nan'"),
        (["a", "b"] * 20, "'x' is no number for 40 of 40 patients, the first 'P000' with 'a'; make it 0 and 1"),
    ],
)
def test_a_cox_model_refuses_a_column_that_it_cannot_take(column, says):
    days, dead, base, _ = simulated(40, seed=2)
    table = base.assign(days=days, dead=dead)
    table["x"] = 1 - table[column].astype(int) if column == "old" else table[column] if column == "dead" else column
    with pytest.raises(CohortError, match=says):
        survival.cox(table, ["old", "male", "x"])


def test_a_cox_model_names_an_absent_column():
    days, dead, base, _ = simulated(20, seed=0)
    with pytest.raises(CohortError, match=r"cox needs columns of the table; \['age'\]"):
        survival.cox(base.assign(days=days, dead=dead), ["old", "age"])


def test_stepwise_selection_finds_what_is_planted_keeps_the_base_and_ends_where_no_step_helps():
    days, dead, base, x = simulated(150, seed=3, candidates=5, effects=(1.1, -1.1))
    path, model = survival.stepwise_cox(days, dead, base, x)
    assert list(model.index[:2]) == ["old", "male"]
    assert {"set 0", "set 1"} <= set(model.index)
    assert model.loc["set 0", "low"] > 1 > model.loc["set 1", "high"]
    assert path["change"][0] == "start" and (path["AIC"].diff().dropna() < 0).all()
    assert path["AIC"].iloc[-1] == pytest.approx(model.attrs["AIC"])
    table = base.join(x).astype(float).assign(days=days, dead=dead)
    for name in x:
        names = [*model.index.drop(name)] if name in model.index else [*model.index, name]
        other = CoxPHFitter().fit(table[[*names, "days", "dead"]], "days", "dead").AIC_partial_
        assert other > model.attrs["AIC"]


def test_stepwise_selection_drops_a_stand_in_when_the_real_causes_have_entered():
    days, dead, base, x = simulated(200, seed=0, candidates=2, effects=(1.0, 1.0))
    x["stand-in"] = x["set 0"] | x["set 1"]
    path, model = survival.stepwise_cox(days, dead, base, x)
    assert path["change"].iloc[[1, -1]].tolist() == ["+ stand-in", "- stand-in"]
    assert sorted(model.index) == ["male", "old", "set 0", "set 1"]


def test_candidates_that_repeat_the_base_or_are_constant_never_enter():
    days, dead, base, x = simulated(60, seed=4, candidates=1)
    path, _ = survival.stepwise_cox(days, dead, base, x.assign(never=False, older=base["old"]))
    assert not path["change"].str.contains("never|older").any()
    with pytest.raises(CohortError, match="'old' is in the base and among the candidates"):
        survival.stepwise_cox(days, dead, base, x.assign(old=base["old"]))


def test_of_many_candidates_those_of_the_smallest_log_rank_p_may_enter():
    days, dead, base, x = simulated(80, seed=5, candidates=20, effects=(1.5,))
    path, _ = survival.stepwise_cox(days, dead, base, x, most=2)
    best = survival.log_rank_of(x, days, dead, least=1).index[:2]
    assert set(path["change"][1:].str[2:]) <= set(best) and "set 0" in best


def test_concordance_after_selection_from_noise_is_lower_in_patients_who_did_not_select():
    days, dead, base, x = simulated(80, seed=0, candidates=30)
    found = survival.validated_concordance(days, dead, base, x, folds=3, most=4, draws=50)
    gain = found.loc["difference"]
    assert gain["in-sample"] > 0.02  # what would be quoted
    assert gain["validated"] < gain["in-sample"] - 0.02 and gain["low"] < 0
    assert gain["validated"] == pytest.approx(found["validated"]["base + stepwise"] - found["validated"]["base"])
    assert [len(chosen) > 0 for chosen in found.attrs["chosen"]] == [True] * 3


def test_concordance_after_selection_of_a_planted_effect_stays():
    days, dead, base, x = simulated(90, seed=7, candidates=3, effects=(1.6,))
    found = survival.validated_concordance(days, dead, base, x, folds=3, draws=50)
    assert found.loc["difference", "low"] > 0
    assert all("set 0" in chosen for chosen in found.attrs["chosen"])


def test_selection_sees_the_training_part_alone_and_patients_stay_whole(monkeypatch):
    days, dead, base, x = simulated(60, seed=8, candidates=2)
    patients, seen = pd.Series(np.arange(60) // 2), []
    stepwise = survival.stepwise_cox

    def watched(days, *others):
        seen.append(days.index)
        return stepwise(days, *others)

    monkeypatch.setattr(survival, "stepwise_cox", watched)
    found = survival.validated_concordance(days, dead, base, x, patients, folds=3, draws=2)
    *folds, whole = seen
    place = dict(zip(days.index, patients, strict=True))
    left = [{place[name] for name in days.index.difference(fold)} for fold in folds]
    assert sorted(p for test in left for p in test) == list(range(30))  # each patient untouched by one selection
    assert all(not test & {place[name] for name in fold} for test, fold in zip(left, folds, strict=True))
    assert len(whole) == 60 and (found["n"] == 30).all()


def test_fishers_test_is_that_of_the_lady_tasting_tea():
    tea = pd.DataFrame({"poured": pd.Categorical(["tea"] * 4 + ["milk"] * 4, ["tea", "milk"])})
    said = pd.DataFrame({"said": [0, 0, 0, 1, 0, 1, 1, 1], "nothing": 0})
    found = survival.association(tea, said)
    assert found.attrs["left_out"] == {"pairs with a constant side": 1}
    assert found[["n", "odds ratio"]].iloc[0].tolist() == [8, 9]
    assert found["p"].iloc[0] == pytest.approx(34 / 70)


def test_association_corrects_over_all_pairs_and_finds_the_planted_one():
    rng = np.random.default_rng(0)
    traits = pd.DataFrame(rng.random((100, 2)) < 0.4, columns=["f5", "f9"])
    sets = pd.DataFrame(rng.random((100, 10)) < 0.4).add_prefix("set ")
    sets["set 3"] = traits["f9"] ^ (rng.random(100) < 0.1)
    found = survival.association(traits, sets)
    assert len(found) == 20 and (found["bonferroni"] >= found["q"]).all()
    assert found["bonferroni"].tolist() == pytest.approx((20 * found["p"]).clip(upper=1).tolist())
    assert found.loc[found["q"] < 0.05, ["trait", "indicator"]].to_numpy().tolist() == [["f9", "set 3"]]


def test_the_base_is_that_of_the_published_models():
    obs = pd.DataFrame(
        {"age": [40, 60, None], "gender": ["male", "FEMALE", None], "race": ["WHITE", "ASIAN", "[Not Available]"]}
    )
    found = survival.demographics(obs)
    assert found.iloc[:2].to_numpy().tolist() == [[0, 1, 0], [1, 0, 1]] and found.iloc[2].isna().all()
    assert list(found) == ["age >= 50.0", "male", "non-white"]
    assert list(survival.demographics(obs[["gender"]])) == ["male"]
    with pytest.raises(CohortError, match="none of 'age', 'gender' and 'race'"):
        survival.demographics(pd.DataFrame({"sex": ["male"]}))


def test_kaplan_meier_shows_intervals_numbers_at_risk_and_the_p_value():
    mice = load_waltons()
    ax = survival.kaplan_meier(365 * mice["T"], mice["E"], mice["group"], "Mice")
    p = logrank_test(*[mice["T"][mice["group"] == g] for g in ("control", "miR-137")],
                     *[mice["E"][mice["group"] == g] for g in ("control", "miR-137")]).p_value  # fmt: skip
    assert ax.get_title(loc="left") + ax.get_title() == f"Mice\nlog-rank p = {p:.2g}"
    assert ax.get_xlabel() == "years of 365 days" and ax.get_xlim()[0] == 0
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "control (n = 129, 122 died)", "miR-137 (n = 34, 34 died)"
    ]  # fmt: skip
    assert len(ax.collections) == 2  # the intervals
    below = {float(t.get_position()[0]): t.get_text().split() for t in ax.figure.axes[-1].get_xticklabels()}
    for year in (20, 40):
        expected = [(mice["T"][mice["group"] == g] > year).sum() for g in ("control", "miR-137")]
        assert [int(word) for word in below[year]] == expected
    plt.close(ax.figure)


def test_kaplan_meier_counts_who_has_no_group_and_takes_an_axes_and_months():
    days, dead, _, x = simulated(30, seed=0)
    groups, (_, own) = x["set 0"].map({True: "enriched", False: "not"}).where(np.arange(30) > 4), plt.subplots()
    ax = survival.kaplan_meier(days, dead, groups, "Sets", own, unit="months")
    assert ax is own and ax.get_xlabel() == "months of 30.42 days; 5 without a group"
    alone = survival.kaplan_meier(days, dead, pd.Series("all", days.index), "All")
    assert "log-rank" not in alone.get_title()
    with pytest.raises(CohortError, match="no unit 'weeks'; expected one of years, months"):
        survival.kaplan_meier(days, dead, groups, "Sets", unit="weeks")
    plt.close("all")


@pytest.mark.parametrize(
    "days, dead, says",
    [
        ([5, -1], [1, 1], "1 of 2 patients, the first 'B' with '-1', lack days of follow-up of zero or more"),
        ([None, 3], [1, 1], "the first 'A' with 'nan', lack days of follow-up that are a number"),
        (["x", 3], [1, 1], "the first 'A' with 'x', lack days"),
        ([5, 3], ["dead", None], "the first 'B' with 'None', lack a status of dead or alive"),
        ([5, 3], ["dead", "lost"], "the first 'B' with 'lost', lack a status"),
        ([5, 3], ["alive", "alive"], "none of 2 patients died; .* is the status the right way round"),
    ],
)
def test_follow_up_that_cannot_be_is_refused_by_row(days, dead, says):
    with pytest.raises(CohortError, match=says):
        survival.follow_up(pd.Series(days, ["A", "B"]), pd.Series(dead, ["A", "B"]))


def test_words_and_zero_days_are_follow_up():
    found = survival.follow_up(pd.Series([0, 9]), pd.Series(["Alive", "DEAD"]).astype("category"))
    assert found["days"].tolist() == [0, 9] and found["dead"].tolist() == [False, True]


def test_tables_of_other_patients_and_indicators_of_other_values_are_refused():
    days, dead, base, x = simulated(20, seed=0)
    for call in (
        lambda: survival.log_rank_of(x[::-1], days, dead),
        lambda: survival.stepwise_cox(days, dead, base[1:], x),
        lambda: survival.kaplan_meier(days, dead, x["set 0"][1:], ""),
        lambda: survival.association(x, base[1:]),
    ):
        with pytest.raises(CohortError, match="other rows|different rows"):
            call()
    with pytest.raises(CohortError, match=r"days \(20\) and dead \(19\) have different rows"):
        survival.follow_up(days, dead[1:])
    with pytest.raises(CohortError, match="'score' holds '2.5' for 'P000'; expected 0 and 1"):
        survival.log_rank_of(pd.DataFrame({"score": 2.5}, days.index), days, dead)


def test_a_median_that_half_of_the_patients_outlive_is_unknown():
    found = survival.log_rank_of(
        pd.DataFrame({"set": [1, 1, 0, 0]}), pd.Series([9, 9, 1, 2]), pd.Series([0, 0, 1, 1]), 2
    )
    assert np.isnan(found.loc["set", "median with"]) and found.loc["set", "median without"] == 1
