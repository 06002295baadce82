"""Rules that exclude each other, in the file and with the catalogue; and those that only seem to."""

import pytest

from engine.errors import RulesError
from engine.rules.conflicts import check_catalogue
from tests.engine.rules.files import items_of, rules_of


def pin(name: str, item: str, position: int, more: str = "") -> str:
    return f"- {{name: {name}, action: pin, item_id: {item}, position: {position}{more}}}\n"


def slot(name: str, position: int, more: str = "") -> str:
    return f"- {{name: {name}, action: slot, items: {{brand: x}}, position: {position}{more}}}\n"


def share(name: str, part: float, more: str = "") -> str:
    return f"- {{name: {name}, action: min_share, items: {{brand: {name}}}, share: {part}{more}}}\n"


def deny(items: str, more: str = "") -> str:
    return f"- {{name: d, action: deny, items: {items}{more}}}\n"


GERMANY, FRANCE = ", when: {country: DE}", ", when: {country: FR}"
NOT_GERMANY = ", when: {country_not: DE}"


def hours(start: str, end: str, zone: str = "UTC", days: str = "[mon, tue, wed, thu, fri, sat, sun]") -> str:
    return f", when: {{hours: {{from: '{start}', until: '{end}'}}, timezone: {zone}, weekdays: {days}}}"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (pin("a", "x", 1) + pin("b", "y", 1), 4, "rule 'b': position 1 is already taken by the pin 'a'"),
        (pin("a", "x", 1) + slot("b", 1), 4, "already taken by the pin 'a'"),
        (slot("a", 1) + pin("b", "x", 1), 4, "already taken by the slot 'a'"),
        (slot("a", 1) + slot("b", 1), 4, "already taken by the slot 'a'"),
        (pin("a", "x", 1) + pin("b", "x", 2), 4, "'x' is already at position 1 by the pin 'a'"),
        (pin("a", "x", 1, GERMANY) + pin("b", "y", 1), 4, "already taken"),
        (pin("a", "x", 1, GERMANY) + pin("b", "y", 1, ", when: {device: tv}"), 4, "already taken"),
        (pin("a", "x", 1, FRANCE) + pin("b", "y", 1, NOT_GERMANY), 4, "already taken"),
        (pin("a", "x", 1, hours("22:00", "02:00")) + pin("b", "y", 1, hours("01:00", "03:00")), 4, "already taken"),
        (pin("a", "x", 1, hours("08:00", "09:00")) + pin("b", "y", 1, hours("10:00", "11:00", "Asia/Tokyo")),
         4, "already taken"),
        (pin("a", "x", 1) + deny("{item_ids: [x, y]}"), 3, "rule 'a': the pinned item 'x' is denied by the rule 'd'"),
        (deny("{item_ids: [x, y]}") + pin("a", "x", 1), 4, "denied by the rule 'd'"),
        (deny("{any_of: [{brand: b}, {item_ids: x}]}") + pin("a", "x", 1), 4, "denied by the rule 'd'"),
        (deny("{not: {item_ids: y}}") + pin("a", "x", 1), 4, "denied by the rule 'd'"),
        (share("a", 0.6) + share("b", 0.5), 4, "rule 'b': shares on 'home' add up to 1.1, above 1, together with 'a'"),
        (share("a", 0.6, GERMANY) + share("c", 0.3) + share("b", 0.5), 5, "1.4, above 1, together with 'a', 'c'"),
        (share("a", 0.6, GERMANY) + share("c", 0.6, FRANCE) + share("b", 0.5, FRANCE), 5, "add up to 1.1"),
    ],
)  # fmt: skip
def test_conflicts_in_the_file(text: str, line: int, reason: str) -> None:
    with pytest.raises(RulesError) as caught:
        rules_of(text)
    assert reason in caught.value.reason
    assert caught.value.line == line


@pytest.mark.parametrize(
    "text",
    [
        pin("a", "x", 1, ", surfaces: home") + pin("b", "y", 1, ", surfaces: cart"),
        pin("a", "x", 1, GERMANY) + pin("b", "y", 1, FRANCE),
        pin("a", "x", 1, GERMANY) + slot("b", 1, NOT_GERMANY),
        pin("a", "x", 1, ", when: {age_group: ['1', '2']}") + pin("b", "y", 1, ", when: {age_group_not: ['1', '2']}"),
        pin("a", "x", 1, ", when: {until: 2026-01-02T00:00:00+01:00}")
        + pin("b", "y", 1, ", when: {from: 2026-01-01T23:00:00Z}"),
        pin("a", "x", 1, hours("22:00", "02:00")) + pin("b", "y", 1, hours("02:00", "22:00")),
        pin("a", "x", 1, hours("22:00", "02:00", days="fri")) + pin("b", "y", 1, hours("22:00", "02:00", days="sat")),
        pin("a", "x", 1, ", surfaces: home") + deny("{item_ids: x}", ", surfaces: cart"),
        pin("a", "x", 1) + deny("{item_ids: x}", GERMANY),
        pin("a", "x", 1) + deny("{item_ids: x, brand: b}"),
        pin("a", "x", 1) + deny("{not: {item_ids: x}}"),
        "".join(share(f"s{index}", 0.1) for index in range(10)),
        share("a", 0.6, GERMANY) + share("b", 0.6, FRANCE),
    ],
)
def test_what_only_seems_a_conflict(text: str) -> None:
    assert len(rules_of(text)) > 1


CATALOGUE = items_of([{"item_id": "x", "brand": "b", "price": 3.0}, {"item_id": "y", "category": "c"}])


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (pin("a", "x", 1) + deny("{brand: b}"), 3, "'x' is denied by the rule 'd'"),
        (
            pin("a", "x", 1) + "- {name: w, action: allow, surfaces: cart, items: {category: c}}",
            3,
            "'x' is not allowed on 'cart' by any of 'w'",
        ),
        (
            "- {name: w, action: allow, items: {category: c}}\n"
            "- {name: v, action: allow, items: {brand: b}, when: {country: DE}}\n" + pin("a", "x", 1, FRANCE),
            5,
            "'x' is not allowed on 'home' by any of 'w', 'v'",
        ),
    ],
)
def test_conflicts_with_the_catalogue(text: str, line: int, reason: str) -> None:
    with pytest.raises(RulesError) as caught:
        check_catalogue(rules_of(text), CATALOGUE)
    assert reason in caught.value.reason
    assert caught.value.line == line


@pytest.mark.parametrize(
    "text",
    [
        pin("a", "y", 1) + deny("{brand: b}"),
        pin("a", "x", 1) + deny("{brand: b}", GERMANY),
        "- {name: w, action: allow, items: {category: c}}\n"
        "- {name: v, action: allow, items: {brand: b}, when: {country: DE}}\n" + pin("a", "x", 1),
    ],
)
def test_pins_that_may_be_kept(text: str) -> None:
    assert check_catalogue(rules_of(text), CATALOGUE) == []


def test_what_matches_nothing_is_told() -> None:
    rules = rules_of(pin("a", "z", 1) + deny("{brand: nobody}") + "- {name: c, action: cap, by: brand, limit: 1}")
    assert check_catalogue(rules, CATALOGUE.drop("seller")) == [
        "line 3: rule 'a': the catalogue does not have the pinned item 'z'",
        "line 4: rule 'd': no item of the catalogue matches",
    ]
