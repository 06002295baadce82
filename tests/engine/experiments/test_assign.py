"""Assignment: exact shares, independence of layers, stability, and what overrides do. One unit and many agree."""

import datetime
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from engine.config.serving import EngineConfig
from engine.errors import InvalidRequest
from engine.experiments.assign import HELD_OUT, NOT_HELD_OUT, Experiments
from engine.types import ExperimentAssignment, RecommendQuery

NOW = datetime.datetime(2026, 11, 15, tzinfo=datetime.UTC)
NOW_MS = int(NOW.timestamp() * 1000)
UNITS = [f"user-{number}" for number in range(1_000_000)]
FEW = UNITS[:3000]


def experiment(name: str, shares: dict[str, float], **fields: Any) -> dict[str, Any]:
    changes = fields.pop("changes", {})
    variants = [{"name": variant, "share": share, **changes.get(variant, {})} for variant, share in shares.items()]
    return {"name": name, "variants": variants, **fields}


def made(
    *experiments: dict[str, Any], holdout: float = 0.0, exploration: dict[str, Any] | None = None, **more: Any
) -> Experiments:
    config = EngineConfig(experiments=experiments, holdout={"share": holdout, **more}, exploration=exploration or {})
    return Experiments(config, NOW.timestamp)


def query(unit: str, surface: str = "home", **overrides: str) -> RecommendQuery:
    return RecommendQuery(unit, surface, 50, NOW_MS, experiment_overrides=tuple(overrides.items()))


def assigned(experiments: Experiments, unit: str, **more: Any) -> dict[str, str]:
    return {one.experiment: one.variant for one in experiments.assign(query(unit, **more)).experiments}


HALVES = {"a": 0.5, "b": 0.5}


class TestShares:
    def test_are_exact_to_two_thousandths_over_a_million(self) -> None:
        shares = {"control": 0.5, "few": 0.01, "third": 0.3333}
        experiments = made(experiment("e", shares), holdout=0.1)
        codes = experiments.assign_many(UNITS, "home", NOW_MS)
        held = float((codes["holdout"] == 0).mean())
        assert held == pytest.approx(0.1, abs=0.002)
        inside = codes["e"][codes["holdout"] == 1]
        for place, share in enumerate(shares.values()):
            assert float((inside == place).mean()) == pytest.approx(share, abs=0.002)
        assert float((inside < 0).mean()) == pytest.approx(1 - sum(shares.values()), abs=0.002)

    @pytest.mark.parametrize("style", ["number", "hex", "mail"])
    def test_whatever_ids_look_like(self, style: str) -> None:
        write = {"number": str, "hex": "{:032x}".format, "mail": "somebody+{}@example.org".format}[style]
        codes = made(experiment("e", HALVES)).assign_many([write(n) for n in range(100_000)], "home", NOW_MS)["e"]
        assert float(codes.mean()) == pytest.approx(0.5, abs=0.006)

    def test_held_out_people_are_in_no_experiment(self) -> None:
        experiments = made(
            experiment("e", HALVES, layer="x"), experiment("f", HALVES, layer="y"), holdout=0.2, surfaces=["cart"]
        )
        codes = experiments.assign_many(UNITS, "cart", NOW_MS)
        held = codes["holdout"] == 0
        for name in ("e", "f"):
            assert (codes[name][held] == -1).all()
            assert (codes[name][~held] >= 0).all()
        # Where the holdout does not concern the surface, they are left alone all the same.
        elsewhere = experiments.assign_many(UNITS, "home", NOW_MS)
        assert "holdout" not in elsewhere
        np.testing.assert_array_equal(elsewhere["e"], codes["e"])


class TestLayers:
    def test_say_nothing_of_each_other(self) -> None:
        thirds = {"a": 0.3333, "b": 0.3333, "c": 0.3333}
        names = ("e", "f", "g")
        experiments = made(*(experiment(name, thirds) for name in names), holdout=0.05)
        codes = experiments.assign_many(UNITS, "home", NOW_MS)
        for one, other in (("e", "f"), ("e", "g"), ("f", "g")):
            both = (codes[one] >= 0) & (codes[other] >= 0)
            table = np.bincount(codes[one][both] * 3 + codes[other][both], minlength=9).reshape(3, 3)
            # Fixed ids: not a matter of luck, and one in a thousand would be bad luck enough to look into.
            assert chi2_contingency(table).pvalue > 0.001

    def test_nor_does_the_place_in_a_layer_of_the_variant(self) -> None:
        low, high = (
            made(experiment("e", HALVES, layer="x", buckets=buckets)).assign_many(UNITS, "home", NOW_MS)["e"]
            for buckets in ((0, 5000), (5000, 10_000))
        )
        table = [[int((codes == place).sum()) for place in (0, 1)] for codes in (low, high)]
        assert chi2_contingency(table).pvalue > 0.001

    def test_within_one_nobody_is_in_two(self) -> None:
        experiments = made(
            experiment("e", {"a": 0.5, "b": 0.2}, layer="x", buckets=(0, 3000)),
            experiment("f", HALVES, layer="x", buckets=(3000, 10_000)),
        )
        codes = experiments.assign_many(UNITS, "home", NOW_MS)
        assert not ((codes["e"] >= 0) & (codes["f"] >= 0)).any()
        assert float((codes["e"] >= 0).mean()) == pytest.approx(0.3 * 0.7, abs=0.002)
        assert float((codes["f"] >= 0).mean()) == pytest.approx(0.7, abs=0.002)

    def test_another_salt_deals_anew(self) -> None:
        first, second = (
            made(experiment("e", HALVES, salt=salt)).assign_many(UNITS, "home", NOW_MS)["e"] for salt in ("", "again")
        )
        assert float((first == second).mean()) == pytest.approx(0.5, abs=0.002)


class TestStability:
    def test_growing_shares_take_from_nobody_who_has_a_variant(self) -> None:
        before = made(experiment("e", {"a": 0.01, "b": 0.01, "c": 0.01})).assign_many(UNITS, "home", NOW_MS)["e"]
        after = made(experiment("e", {"a": 0.1, "b": 0.3, "c": 0.3})).assign_many(UNITS, "home", NOW_MS)["e"]
        had = before >= 0
        np.testing.assert_array_equal(before[had], after[had])

    def test_the_holdout_only_grows(self) -> None:
        small, large = (made(holdout=share).assign_many(UNITS, "home", NOW_MS)["holdout"] == 0 for share in (0.05, 0.1))
        assert not (small & ~large).any()

    def test_an_experiment_that_ends_moves_nobody_of_the_others(self) -> None:
        ended = experiment("old", HALVES, layer="x", buckets=(0, 5000), end=NOW - datetime.timedelta(days=1))
        stays = experiment("e", HALVES, layer="x", buckets=(5000, 10_000))
        successor = experiment("new", HALVES, layer="x", buckets=(0, 5000), start=NOW)
        alone = made(stays).assign_many(FEW, "home", NOW_MS)["e"]
        codes = made(ended, stays, successor).assign_many(FEW, "home", NOW_MS)
        np.testing.assert_array_equal(codes["e"], alone)
        assert "old" not in codes
        assert (codes["new"] >= 0).any()

    def test_assignments_of_today_are_those_of_yesterday(self) -> None:
        """Pinned: another hash or another order of buckets would deal every running experiment again."""
        codes = made(experiment("e", HALVES), holdout=0.2).assign_many(FEW[:20], "home", NOW_MS)
        assert codes["holdout"].tolist() == PINNED_HOLDOUT
        assert codes["e"].tolist() == PINNED_CODES


PINNED_HOLDOUT = [0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1]
PINNED_CODES = [-1, -1, 1, 0, 0, -1, -1, 0, 0, -1, 0, -1, -1, 0, -1, 0, 1, -1, -1, 0]


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_one_unit_and_many_agree(data: st.DataObject) -> None:
    bounds = sorted(data.draw(st.sets(st.integers(0, 10_000), min_size=2, max_size=4)))
    share = st.integers(1, 3000).map(lambda count: count / 10_000)
    day = st.sampled_from([None, NOW - datetime.timedelta(days=1), NOW, NOW + datetime.timedelta(days=1)])
    experiments = []
    for place, buckets in enumerate(itertools.pairwise(bounds)):
        start, end = data.draw(day), data.draw(day)
        if start and end and start >= end:
            start = None
        shares = {f"v{number}": data.draw(share) for number in range(data.draw(st.integers(1, 3)))}
        layer = data.draw(st.sampled_from(["", "x"]))
        surfaces = data.draw(st.sampled_from([(), ("home",), ("cart", "email")]))
        experiments.append(
            experiment(f"e{place}", shares, layer=layer, buckets=buckets, start=start, end=end, surfaces=surfaces)
        )
    held = data.draw(st.integers(0, 5000)) / 10_000
    both = made(*experiments, holdout=held, surfaces=data.draw(st.sampled_from([[], ["home"]])))
    for surface in ("home", "cart"):
        many = both.assign_many(FEW[:200], surface, NOW_MS)
        names = {one["name"]: [variant["name"] for variant in one["variants"]] for one in experiments}
        names["holdout"] = ["baseline", "engine"]
        for place, unit in enumerate(FEW[:200]):
            expected = {name: names[name][codes[place]] for name, codes in many.items() if codes[place] >= 0}
            assert assigned(both, unit, surface=surface) == expected


class TestOverrides:
    def test_replace_what_was_assigned_and_say_so(self) -> None:
        experiments = made(experiment("e", HALVES), experiment("f", HALVES))
        for unit in FEW[:20]:
            usual = assigned(experiments, unit)
            for variant in ("a", "b"):
                found = experiments.assign(query(unit, e=variant)).experiments
                assert set(found) == {
                    ExperimentAssignment("e", variant, overridden=True),
                    ExperimentAssignment("f", usual["f"]),
                }

    def test_reach_experiments_that_do_not_run(self) -> None:
        experiments = made(experiment("e", {"a": 0.0001}, start=NOW + datetime.timedelta(days=1)))
        assert assigned(experiments, "user-1") == {}
        assert assigned(experiments, "user-1", e="a") == {"e": "a"}

    def test_leave_their_layer_to_the_one_that_is_asked_for(self) -> None:
        experiments = made(
            experiment("e", {"a": 1.0}, layer="x", buckets=(0, 5000)),
            experiment("f", {"a": 1.0}, layer="x", buckets=(5000, 10_000)),
        )
        for unit in FEW[:20]:
            assert assigned(experiments, unit, f="a") == {"f": "a"}

    def test_take_people_out_of_the_holdout_and_into_it(self) -> None:
        experiments = made(experiment("e", HALVES), holdout=0.5)
        units = {assigned(experiments, unit)["holdout"]: unit for unit in FEW[:50]}
        held, free = units["baseline"], units["engine"]
        assert experiments.assign(query(held)).experiments == (HELD_OUT,)
        assert experiments.assign(query(held)).settings.baseline
        asked = experiments.assign(query(held, e="a"))
        assert set(asked.experiments) == {
            ExperimentAssignment("holdout", "engine", overridden=True),
            ExperimentAssignment("e", "a", overridden=True),
        }
        assert not asked.settings.baseline
        assert NOT_HELD_OUT in experiments.assign(query(free, e="a")).experiments
        baseline = experiments.assign(query(free, e="a", holdout="baseline"))
        assert baseline.experiments[0] == ExperimentAssignment("holdout", "baseline", overridden=True)
        assert baseline.settings.baseline

    def test_do_nothing_where_their_experiment_is_not(self) -> None:
        experiments = made(experiment("e", HALVES, surfaces=["cart"]), experiment("f", HALVES))
        for unit in FEW[:20]:
            assert experiments.assign(query(unit, e="a")) == experiments.assign(query(unit))

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"nothing": "a"}, "no experiment 'nothing'"),
            ({"e": "z"}, "no variant 'z'; it has a, b"),
            ({"e": "a", "f": "a"}, "in one layer"),
        ],
    )
    def test_of_what_there_is_not_are_refused(self, asked: dict[str, str], said: str) -> None:
        experiments = made(
            experiment("e", HALVES, layer="x", buckets=(0, 10)), experiment("f", HALVES, layer="x", buckets=(10, 20))
        )
        with pytest.raises(InvalidRequest, match=said):
            experiments.assign(query("u", **asked))


class TestSettings:
    def test_variants_change_what_they_say_and_nothing_else(self) -> None:
        changes = {
            "b": {
                "ranker": False, "diversity_weight": 0.7, "half_life_s": 60.0, "evidence_half": 9.0, "rules": "off",
                "exploration_share": 0.2, "bundle": "v2",
            }
        }  # fmt: skip
        experiments = made(experiment("e", HALVES, changes=changes))
        plain, changed = (experiments.assign(query("u", e=variant)).settings for variant in ("a", "b"))
        usual = made().assign(query("u")).settings
        assert replace(plain, blend=usual.blend) == usual
        assert plain.blend.evidence_half == usual.blend.evidence_half
        assert (changed.ranker, changed.diversity_weight, changed.rules, changed.bundle) == (False, 0.7, "off", "v2")
        assert (changed.exploration_share, changed.blend.evidence_half) == (0.2, 9.0)
        assert changed.blend.session.half_life_s == 60.0
        assert changed.blend.session.window_s == plain.blend.session.window_s

    def test_the_baseline_is_popularity_alone(self) -> None:
        """Neither diversity nor exploration; whoever is not in it gets what the settings say."""
        experiments = made(experiment("e", HALVES, changes={"b": {"baseline": True}}), exploration={"share": 0.2})
        plain, baseline = (experiments.assign(query("u", e=variant)).settings for variant in ("a", "b"))
        config = EngineConfig()
        usual = config.surfaces["home"]
        assert (plain.diversity_weight, plain.diversity) == (usual.diversity_weight, usual.diversity)
        assert plain.duplicate_similarity == usual.duplicate_similarity
        assert (plain.exploration_share, plain.ranker, plain.baseline) == (0.2, True, False)
        assert (plain.bundle, plain.rules) == ("", "")
        expected = replace(plain, baseline=True, diversity_weight=0.0, exploration_share=0.0)
        assert replace(baseline, blend=plain.blend) == expected
        # When there is no time for anything else: the same, and nothing is compared with anything.
        cheapest = plain.cheapest()
        assert cheapest.duplicate_similarity > 1.0
        assert replace(cheapest, duplicate_similarity=plain.duplicate_similarity) == expected

    def test_a_visitor_is_told_from_others_by_the_session(self) -> None:
        experiments = made(experiment("e", HALVES))
        visits = [RecommendQuery("", "home", 50, NOW_MS, session_id=unit) for unit in FEW[:50]]
        by_session = [experiments.assign(visit).experiments for visit in visits]
        assert by_session == [experiments.assign(query(unit)).experiments for unit in FEW[:50]]
        assert len(set(by_session)) == 2
