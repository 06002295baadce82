"""Each formula against a library's or a published one."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_effectsize

from engine.errors import InvalidRequest
from engine.experiments.analysis.bootstrap import MAX_GROUPS, bootstrap_lifts
from engine.experiments.analysis.plan import detectable_lift, spread_of_share, units_needed
from engine.experiments.analysis.report_query import Correction
from engine.experiments.analysis.significance import (
    adjusted_p_values,
    anytime_critical,
    anytime_interval,
    anytime_p_value,
    check_split,
)
from engine.experiments.analysis.statistics import (
    Estimate,
    Moments,
    adjusted_ratios,
    difference_interval,
    lift_interval,
    log_lift,
    p_value,
    ratio,
)
from engine.types import Float64Array


def users(seed: int, count: int) -> Float64Array:
    """float64 (count, 2): clicks and requests that hang together."""
    random = np.random.default_rng(seed)
    requests = 1 + random.poisson(random.lognormal(1.0, 0.8, count))
    return np.stack([random.binomial(requests, random.beta(2, 10, count)), requests], axis=1).astype(np.float64)


class TestRatio:
    def test_a_mean_is_a_ratio_to_one(self) -> None:
        """With one in every denominator it is Welch's test, on the scale of differences."""
        a, b = (users(seed, 500)[:, :1] for seed in (1, 2))
        estimates = [ratio(Moments.of(np.hstack([values, np.ones_like(values)]))) for values in (a, b)]
        for estimate, values in zip(estimates, (a, b), strict=True):
            assert estimate.value == pytest.approx(values.mean())
            assert math.sqrt(estimate.variance) == pytest.approx(stats.sem(values[:, 0]))
        interval = difference_interval(estimates[1], estimates[0], 0.05)
        welch = stats.ttest_ind(b[:, 0], a[:, 0], equal_var=False).confidence_interval()
        assert (interval.low, interval.high) == pytest.approx((welch.low, welch.high), rel=0.02)

    def test_the_variance_is_that_of_a_weighted_regression_with_clusters(self) -> None:
        """Clicks per request, regressed on a constant, with sandwich errors clustered by user."""
        values = users(3, 800)
        estimate = ratio(Moments.of(values))
        clustered = sm.WLS(values[:, 0] / values[:, 1], np.ones(800), weights=values[:, 1]).fit(cov_type="HC1")
        assert estimate.value == pytest.approx(clustered.params[0])
        assert math.sqrt(estimate.variance) == pytest.approx(clustered.bse[0], rel=1e-9)

    def test_resampling_finds_the_same_interval(self) -> None:
        a, b = users(4, 1_500), users(5, 1_500)
        interval = lift_interval(log_lift(ratio(Moments.of(b)), ratio(Moments.of(a))), 0.05)
        resampled = bootstrap_lifts(b, a, [(0, 1)], 0.05, replicates=2_000)
        assert resampled.value[0] == pytest.approx(float(interval.value))
        assert (resampled.low[0], resampled.high[0]) == pytest.approx((interval.low, interval.high), abs=0.015)

    def test_resampling_groups_of_people_finds_it_too(self) -> None:
        a, b = users(6, 5 * MAX_GROUPS), users(7, 5 * MAX_GROUPS)
        interval = lift_interval(log_lift(ratio(Moments.of(b)), ratio(Moments.of(a))), 0.05)
        resampled = bootstrap_lifts(b, a, [(0, 1)], 0.05)
        assert (resampled.low[0], resampled.high[0]) == pytest.approx((interval.low, interval.high), abs=0.008)

    def test_the_log_of_a_risk_ratio(self) -> None:
        """36 of 36,000 against 48 of 36,000, by the formula of Katz et al. 1978."""
        arms = []
        for events in (36, 48):
            share = events / 36_000
            arms.append(Estimate(np.asarray(share), np.asarray(share * (1 - share) / 36_000)))
        interval = lift_interval(log_lift(arms[0], arms[1]), 0.05)
        error = math.sqrt(1 / 36 - 1 / 36_000 + 1 / 48 - 1 / 36_000)
        assert float(interval.value) == pytest.approx(-0.25)
        assert float(interval.low) == pytest.approx(0.75 * math.exp(-1.959964 * error) - 1, rel=1e-6)
        assert float(interval.high) == pytest.approx(0.75 * math.exp(1.959964 * error) - 1, rel=1e-6)

    def test_nothing_is_made_of_nothing(self) -> None:
        nobody = ratio(Moments.of(np.zeros((0, 2))))
        assert np.isnan(nobody.value)
        idle = ratio(Moments.of(np.zeros((10, 2))))
        assert np.isnan(idle.value)
        some = ratio(Moments.of(users(8, 10)))
        none = ratio(Moments.of(users(8, 10) * [0, 1]))
        lift = log_lift(some, none)
        assert np.isnan(lift.value)
        assert np.isnan(p_value(lift))
        assert np.isnan(bootstrap_lifts(users(8, 10), users(8, 10) * [0, 1], [(0, 1)], 0.05).low[0])

    def test_where_nothing_varies_only_a_difference_says_something(self) -> None:
        lifts = Estimate(np.array([0.0, 0.2]), np.zeros(2))
        assert p_value(lifts).tolist() == [1.0, 0.0]

    def test_p_values_and_intervals_agree(self) -> None:
        """Below alpha exactly where the interval leaves out 0, at any level."""
        lift = Estimate(np.linspace(-0.5, 0.5, 41), np.full(41, 0.01))
        for alpha in (0.2, 0.05, 0.003):
            interval = lift_interval(lift, alpha)
            assert ((p_value(lift) < alpha) == ((interval.low > 0) | (interval.high < 0))).all()
        assert p_value(lift) == pytest.approx(2 * stats.norm.sf(np.abs(lift.value) / 0.1))

    def test_many_at_once_are_each_alone(self) -> None:
        both = np.stack([users(9, 300), users(10, 300)])
        together = ratio(Moments.of(both))
        for place in range(2):
            alone = ratio(Moments.of(both[place]))
            assert together.value[place] == alone.value
            assert together.variance[place] == pytest.approx(float(alone.variance))


class TestCuped:
    def test_it_is_the_regression_on_what_was_before(self) -> None:
        """For a mean, within-variant regression: the coefficient and the difference of statsmodels' OLS."""
        random = np.random.default_rng(11)
        before = random.lognormal(0, 1, 4_000)
        treated = np.arange(4_000) % 2 == 1
        outcome = 3 + 0.7 * before + 0.2 * treated + random.normal(0, 1, 4_000)
        columns = np.stack([outcome, np.ones(4_000), before], axis=1)
        adjusted = adjusted_ratios(Moments.of(columns[treated]), Moments.of(columns[~treated]))
        design = sm.add_constant(np.stack([treated.astype(float), before], axis=1))
        fitted = sm.OLS(outcome, design).fit(cov_type="HC1")
        difference = adjusted.treatment.value - adjusted.control.value
        error = math.sqrt(adjusted.treatment.variance + adjusted.control.variance)
        assert float(difference) == pytest.approx(fitted.params[1], abs=2e-4)
        assert error == pytest.approx(fitted.bse[1], rel=0.01)

    def test_the_variance_falls_by_the_squared_correlation(self) -> None:
        """Deng et al. 2013: var(adjusted) = var * (1 - correlation^2)."""
        random = np.random.default_rng(12)
        before = random.normal(0, 1, 50_000)
        outcome = 5 + before + random.normal(0, 1, 50_000)
        columns = np.stack([outcome, np.ones(50_000), before], axis=1)
        half = Moments.of(columns[:25_000]), Moments.of(columns[25_000:])
        adjusted = adjusted_ratios(*half)
        kept = float(adjusted.treatment.variance / ratio(half[0]).variance)
        assert kept == pytest.approx(1 - np.corrcoef(outcome, before)[0, 1] ** 2, abs=0.02)

    @pytest.mark.parametrize("useless", ["zeros", "twice"])
    def test_covariates_that_say_nothing_more_do_no_harm(self, useless: str) -> None:
        values = users(13, 600)
        before = np.random.default_rng(14).poisson(values[:, 0]).astype(float)
        extra = np.zeros(600) if useless == "zeros" else 1_000 * before
        one, two = np.column_stack([values, before]), np.column_stack([values, before, extra])
        alone = adjusted_ratios(Moments.of(one[:300]), Moments.of(one[300:]))
        both = adjusted_ratios(Moments.of(two[:300]), Moments.of(two[300:]))
        assert float(both.treatment.value) == pytest.approx(float(alone.treatment.value))
        assert float(both.treatment.variance) == pytest.approx(float(alone.treatment.variance))


class TestSequential:
    def test_the_bound_is_the_published_one(self) -> None:
        """Waudby-Smith et al. 2024, section 2, for a mean of t observations."""
        sigma, scale, alpha = 2.5, 0.1, 0.05
        rho = scale / sigma
        for t in (100, 10_000, 1_000_000):
            published = sigma * math.sqrt(
                2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log(math.sqrt(t * rho**2 + 1) / alpha)
            )
            variance = np.asarray(sigma**2 / t)
            assert math.sqrt(variance) * anytime_critical(variance, alpha, scale) == pytest.approx(published)

    def test_the_p_value_and_the_interval_agree(self) -> None:
        lift = Estimate(np.linspace(-0.5, 0.5, 41), np.full(41, 0.01))
        interval = anytime_interval(lift, 0.05)
        assert ((anytime_p_value(lift) < 0.05) == ((interval.low > 0) | (interval.high < 0))).all()
        assert (anytime_p_value(lift) >= p_value(lift) - 1e-12).all()

    def test_the_p_value_is_the_level_at_which_the_interval_just_reaches_zero(self) -> None:
        for value, variance in ((0.3, 0.01), (-0.2, 0.004), (0.05, 0.0002), (0.9, 0.05)):
            lift = Estimate(np.asarray(value), np.asarray(variance))
            p = float(anytime_p_value(lift))
            # Intervals are symmetric about the logarithm of one plus the lift or the lift itself: told by the z alone.
            z = abs(value) / math.sqrt(variance)
            assert float(anytime_critical(np.asarray(variance), p)) == pytest.approx(z, rel=1e-6)


class TestSplit:
    @pytest.mark.parametrize(("counts", "mismatch"), [((50_000, 50_000), False), ((48_000, 52_000), True)])
    def test_a_planted_mismatch(self, counts: tuple[int, int], mismatch: bool) -> None:
        split = check_split("home", dict(zip(("a", "b"), counts, strict=True)), {"a": 1, "b": 1})
        assert split.mismatch is mismatch
        assert split.p_value == pytest.approx(stats.binomtest(counts[0], sum(counts)).pvalue, abs=2e-3)

    def test_a_published_example(self) -> None:
        """821,588 and 815,482 where half and half were planned: Kohavi, Tang, Xu 2020, chapter 3, p = 1.8e-6."""
        split = check_split("all", {"control": 821_588, "treatment": 815_482}, {"control": 0.5, "treatment": 0.5})
        assert split.p_value == pytest.approx(1.8e-6, rel=0.05)
        assert split.mismatch

    def test_over_many_experiments(self) -> None:
        random = np.random.default_rng(15)
        planned, lossy = random.binomial(20_000, 0.5, 300), random.binomial(20_000, 0.48, 300)
        fired = [
            [check_split("all", {"a": int(n), "b": 20_000 - int(n)}, {"a": 1, "b": 1}).mismatch for n in counts]
            for counts in (planned, lossy)
        ]
        assert np.mean(fired[0]) <= 0.01
        assert np.mean(fired[1]) >= 0.98

    def test_a_variant_that_nobody_saw(self) -> None:
        assert check_split("all", {"a": 500}, {"a": 1, "b": 1}).mismatch

    def test_the_p_value_is_that_of_the_planned_proportions(self) -> None:
        """Also of a variant that nobody saw; one variant alone, and nobody at all, are as planned."""
        split = check_split("all", {"a": 30, "b": 50}, {"a": 2, "b": 5, "c": 1})
        assert split.p_value == pytest.approx(stats.chisquare([30, 50, 0], [20, 50, 10]).pvalue)
        assert split.counts == {"a": 30, "b": 50, "c": 0}
        assert split.expected == pytest.approx({"a": 0.25, "b": 0.625, "c": 0.125})
        for counts, shares in (({"a": 7}, {"a": 3}), ({}, {"a": 1, "b": 1})):
            assert check_split("all", counts, shares).p_value == 1.0

    def test_what_cannot_be_checked(self) -> None:
        with pytest.raises(InvalidRequest, match="'b'"):
            check_split("all", {"a": 1, "b": 1}, {"a": 1})
        with pytest.raises(InvalidRequest, match="above 0"):
            check_split("all", {"a": 1}, {"a": 0})


@pytest.mark.parametrize(("correction", "method"), [(Correction.HOLM, "holm"), (Correction.BH, "fdr_bh")])
def test_corrections(correction: Correction, method: str) -> None:
    p = np.random.default_rng(16).beta(0.4, 2, 30)
    p[[3, 7]] = np.nan
    known = ~np.isnan(p)
    adjusted = adjusted_p_values(p, correction)
    assert adjusted[known] == pytest.approx(multipletests(p[known], method=method)[1])
    assert np.isnan(adjusted[~known]).all()
    assert (adjusted_p_values(p, Correction.NONE)[known] == p[known]).all()


class TestPlan:
    def test_a_published_example(self) -> None:
        """5% conversion, a change of 5%: 121,600 users a variant (16 sigma^2 / delta^2), Kohavi et al. 2009."""
        units = units_needed(spread_of_share(0.05), 0.05, (1, 1), 0.05)
        assert units / 2 == pytest.approx(121_600, rel=0.05)

    def test_against_statsmodels(self) -> None:
        units = units_needed(spread_of_share(0.2), 0.04, (1, 3), 0.05, 0.9)
        effect = proportion_effectsize(0.2 * 1.04, 0.2)
        control = NormalIndPower().solve_power(effect, alpha=0.05, power=0.9, ratio=3)
        assert units == pytest.approx(4 * control, rel=0.05)

    @given(
        st.floats(0.2, 8.0), st.floats(-0.4, 0.6).filter(lambda lift: abs(lift) > 0.02), st.floats(0.1, 10.0),
        st.floats(0.001, 0.1), st.floats(0.7, 0.95),
    )  # fmt: skip
    def test_any_plan_against_statsmodels(
        self, spread: float, lift: float, ratio: float, alpha: float, power: float
    ) -> None:
        """Two normal means that are log(1 + lift) apart; units of this spread, shares of 1 to `ratio`."""
        effect = abs(math.log1p(lift)) / spread
        units = units_needed(spread, lift, (2.0, 2.0 * ratio), alpha, power)
        control = units / (1.0 + ratio)
        one_less = (units - 1) / (1.0 + ratio)
        assert NormalIndPower().power(effect, control, alpha, ratio) >= power - 1e-9
        assert units == 1 or NormalIndPower().power(effect, one_less, alpha, ratio) <= power + 1e-3
        # And what can be found with so many units is that lift, upwards.
        found = detectable_lift(spread, control, ratio * control, alpha, power)
        assert NormalIndPower().power(math.log1p(found) / spread, control, alpha, ratio) == pytest.approx(
            power, abs=1e-3
        )

    def test_there_and_back(self) -> None:
        units = units_needed(2.0, 0.03, (1, 9), 0.05)
        assert detectable_lift(2.0, units / 10, 9 * units / 10, 0.05) == pytest.approx(0.03, rel=1e-3)
        assert detectable_lift(2.0, 0, 10, 0.05) == math.inf
        assert detectable_lift(2.0, 10, 0, 0.05) == math.inf
        assert detectable_lift(2.0, 0.5, 0.5, 0.05) < math.inf

    def test_four_times_in_five(self) -> None:
        """The lift that can be detected is detected so often."""
        detected = 0
        lift = detectable_lift(spread_of_share(0.1), 4_000, 4_000, 0.05)
        random = np.random.default_rng(17)
        control, treatment = (random.binomial(4_000, share, 2_000) / 4_000 for share in (0.1, 0.1 * (1 + lift)))
        arms = [Estimate(share, share * (1 - share) / 4_000) for share in (control, treatment)]
        detected = float(np.mean(p_value(log_lift(arms[1], arms[0])) < 0.05))
        assert 0.75 <= detected <= 0.85

    @pytest.mark.parametrize(
        ("lift", "shares", "power"),
        [
            (0.0, (1, 1), 0.8),
            (-1.0, (1, 1), 0.8),
            (0.1, (1, 0), 0.8),
            (0.1, (1, 1, 1), 0.8),
            (0.1, (1, 1), 1.0),
            (0.1, (1, 1), 0.0),
        ],
    )
    def test_what_cannot_be_planned(self, lift: float, shares: tuple[float, ...], power: float) -> None:
        with pytest.raises(InvalidRequest):
            units_needed(1.0, lift, shares, 0.05, power)

    def test_the_spread_of_a_yes_or_no_is_that_of_its_draws(self) -> None:
        draws = np.array([1.0] * 3 + [0.0] * 17)
        assert spread_of_share(0.15) == pytest.approx(draws.std() / draws.mean())
        for share in (0.0, 1.0):
            with pytest.raises(InvalidRequest, match="rate"):
                spread_of_share(share)
