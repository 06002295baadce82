"""What a file may say, and for everything else the line and the reason."""

from pathlib import Path

import pytest

from engine.config.serving import EngineConfig
from engine.errors import ConfigError, RulesError
from engine.rules.load import MAX_BYTES, load_rules, parse_rules
from engine.rules.schema import Boost, Deny
from tests.engine.rules.files import SURFACES, document, rules_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "rules.yaml"

DENY = "- {name: d, action: deny, items: {brand: x}}"


def test_the_example_is_taken() -> None:
    rules = load_rules(EXAMPLE, EngineConfig().surfaces)
    assert {rule.action for rule in rules.rules} == {
        "allow", "deny", "boost", "bury", "cap", "pin", "slot", "min_share"
    }  # fmt: skip
    lines = EXAMPLE.read_text().splitlines()
    assert [lines[line - 1].strip() for line in rules.lines] == [f"- name: {rule.name}" for rule in rules.rules]


def test_norway_is_a_country_and_half_past_six_a_time() -> None:
    [rule] = rules_of(
        """
        - name: r
          action: boost
          factor: 2
          when: {country: [NO, de], hours: {from: 18:30, until: 24:00, timezone: Europe/Oslo}}
          items: {brand: [b, a, b]}
        """
    ).rules
    assert isinstance(rule, Boost)
    assert rule.when is not None
    assert rule.when.hours is not None
    assert rule.when.country == ("DE", "NO")
    assert (rule.when.hours.start, rule.when.hours.end) == (18 * 60 + 30, 24 * 60)
    assert rule.factor == 2.0
    assert rule.items.brand == ("a", "b")


def test_no_rules_are_rules() -> None:
    assert len(parse_rules(b"version: 1\nrules: []\n", "r", SURFACES)) == 0


REFUSED_FILES = [
    ("", 0, "the file is empty"),
    ("# only a comment\n", 0, "the file is empty"),
    ("rules: []\n", 1, "the key 'version' is missing"),
    ("version: 1\n", 1, "the key 'rules' is missing"),
    ("version: 2\nrules: []\n", 1, "version: 2 is not 1"),
    ("version: 1\nrule: []\nrules: []\n", 2, "unknown key 'rule'; did you mean 'rules'?"),
    ("version: 1\nrules: {}\n", 2, "rules: a list is wanted, found keys with values"),
    ("version: 1\nrules:\n  - 5\n", 3, "keys with values are wanted, found 5"),
    ("- a\n", 1, "keys with values are wanted, found a list"),
    ("version: 1\nrules: []\nversion: 1\n", 3, "the key 'version' appears twice; first in line 1"),
    ("version: 1\nrules: [\n", 3, "not YAML"),
    ("version: 1\n\trules: []\n", 2, "not YAML"),
    ("version: 1\n---\nversion: 1\n", 2, "not YAML"),
    ("version: 1\nrules: &r\n  - *r\n", 3, "aliases"),
    ("version: 1\nrules: !!python/name:os.system []\n", 2, "tags"),
    ("version: 1\nrules:\n  - !deny {name: r}\n", 3, "tags such as !deny"),
    ("version: 1\nrules: !!set {a, b}\n", 2, "tags"),
    ("version: 1\nrules: !list []\n", 2, "tags such as !list"),
    ("version: 1\nrules: !text a\n", 2, "tags such as !text"),
    ("version: 1\nrules: !!float no\n", 2, "'no' is no float"),
    ("version: 1\nrules: []\n? [a]\n: b\n", 3, "a key must be a word"),
    ("[" * 3000, 0, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "line", "reason"), REFUSED_FILES)
def test_files_that_are_refused(text: str, line: int, reason: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(text.encode(), "rules.yaml", SURFACES)
    assert (caught.value.line, caught.value.path) == (line, "rules.yaml")
    assert reason in caught.value.reason
    assert str(caught.value) == (f"rules.yaml:{line}: " if line else "rules.yaml: ") + caught.value.reason
    assert isinstance(caught.value, ConfigError)


def refused(tail: str, head: str = "action: deny") -> str:
    return f"- name: r\n  {head}\n" + "".join(f"  {line}\n" for line in tail.splitlines())


# Line 3 of the file is the rule's first, 4 its action, 5 the first of what follows.
REFUSED_RULES = [
    (refused("item: {brand: x}"), 5, "rule 'r': item: unknown key 'item'; did you mean 'items'?"),
    (refused("items: {brand: x}\nitem: x"), 6, "rule 'r': item: unknown key 'item'; did you mean 'items'?"),
    (refused("items:\n  brand: x\n  colour: red"), 7, "unknown key 'colour'; known are item_ids, category"),
    (refused("items: {brand: x}", "action: forbid"), 4, "no such action: 'forbid'"),
    (refused("items: {brand: x}", "# none"), 3, "the key 'action' is missing; it is one of allow, deny"),
    (refused("items: {}"), 5, "selects nothing in particular"),
    (refused("items: {brand: []}"), 5, "an empty list matches nothing"),
    (
        refused("items:\n  brand:\n    - x\n    - 42"),
        8,
        'brand: text is wanted, found 42; put it in quotes: "42"',
    ),
    (refused('items:\n  brand:\n    - x\n    - ""'), 8, "items.brand: "),
    (refused("items: {brand: true}"), 5, 'put it in quotes: "true"'),
    (refused("items: {brand: }"), 5, "the key 'brand' has no value"),
    (refused("items: {brand: x}\nsurfaces:\nwhen: {country: DE}"), 6, "the key 'surfaces' has no value"),
    (refused("items:\n  brand:\n    - x\n    -"), 8, "items.brand: text is wanted, found nothing"),
    (refused("items: {attribute: a|b}"), 5, "separates attributes"),
    (refused("items:\n  price: {min: 5,\n    max: 4}"), 6, "min 5 is above max 4"),
    (refused("items: {price: {}}"), 5, "needs min, max or both"),
    (refused("items: {price: {min: -1}}"), 5, "items.price.min"),
    (refused("items: {price: {min: .nan}}"), 5, "finite"),
    (refused("items: {price: cheap}"), 5, "keys with values are wanted, found 'cheap'"),
    (refused("items:\n  not:\n    any_of:\n      - brand: x\n      - bran: x"), 9, "did you mean 'brand'?"),
    (refused("items: {any_of: {brand: x}}"), 5, "a list is wanted"),
    (refused("items: {all_of: []}"), 5, "an empty list"),
    (refused("items: {brand: x, brand: y}"), 5, "the key 'brand' appears twice"),
    (refused("items: {brand: x}\nfactor: 2"), 6, "unknown key 'factor'"),
    (refused("items: {brand: x}\nfactor: 1", "action: boost"), 6, "greater than 1 is wanted, found 1"),
    (refused("items: {brand: x}\nfactor: '2'", "action: boost"), 6, "number is wanted, found '2'"),
    (refused("items: {brand: x}\nfactor: 1.5", "action: bury"), 6, "less than 1 is wanted"),
    (refused("items: {brand: x}\nfactor: 0", "action: bury"), 6, "greater than 0 is wanted"),
    (refused("by: colour\nlimit: 2", "action: cap"), 5, "'colour' is not 'category', 'brand' or 'seller'"),
    (refused("by: brand\nlimit: 0", "action: cap"), 6, "greater than or equal to 1"),
    (refused("by: brand\nlimit: 5\nwindow: 4", "action: cap"), 3, "limit 5 is above window 4"),
    (refused("item_id: x\nposition: 0", "action: pin"), 6, "greater than or equal to 1"),
    (refused("item_id: x\nposition: 1.5", "action: pin"), 6, "integer is wanted, found 1.5"),
    (refused("items: {brand: x}\nshare: 1.1", "action: min_share"), 6, "less than or equal to 1"),
    (refused("items: {brand: x}\nsurfaces: [home, shop]"), 6, "no such surface: 'shop'; known are home, category"),
    (refused("items: {brand: x}\nsurfaces:\n  - home\n  - shop"), 8, "no such surface: 'shop'"),
    (refused("items: {brand: x}\nsurfaces: shop"), 6, "no such surface: 'shop'"),
    (refused("items: {brand: x}\nwhen: {}"), 6, "leave `when` out"),
    (refused("items: {brand: x}\nwhen: {country: DE, country_not: de}"), 6, "can never hold"),
    (refused("items: {brand: x}\nwhen: {contry: DE}"), 6, "did you mean 'country'?"),
    (refused("items: {brand: x}\nwhen: {from: 2026-11-27}"), 6, "an instant with its zone is wanted"),
    (refused("items: {brand: x}\nwhen: {from: 2026-11-27T00:00:00}"), 6, "an instant with its zone is wanted"),
    (refused("items: {brand: x}\nwhen: {from: 2026-02-30T00:00:00Z}"), 6, "an instant with its zone is wanted"),
    (
        refused("items: {brand: x}\nwhen: {from: 2026-01-02T00:00:00Z, until: 2026-01-02T00:00:00Z}"),
        6,
        "until is not after from",
    ),
    (refused("items: {brand: x}\nwhen: {weekdays: [sat]}"), 6, "need a timezone"),
    (refused("items: {brand: x}\nwhen: {weekdays: [sta], timezone: UTC}"), 6, "no such weekday: 'sta'"),
    (refused("items: {brand: x}\nwhen: {weekdays: sat, timezone: Mars/One}"), 6, "no such time zone: 'Mars/One'"),
    (refused("items: {brand: x}\nwhen: {weekdays: sat, timezone: ../x}"), 6, "no such time zone"),
    (refused("items: {brand: x}\nwhen: {country: DE, timezone: UTC}"), 6, "has no effect"),
    (refused("items: {brand: x}\nwhen: {hours: {from: 18:00, until: 25:00}, timezone: UTC}"), 6, "a time of day"),
    (refused("items: {brand: x}\nwhen: {hours: {from: 00:00, until: 24:00}, timezone: UTC}"), 6, "the same time"),
    (
        refused("items: {brand: x}\nwhen:\n  timezone: UTC\n  hours: {from: 8:00, until: 18:00}"),
        8,
        "when.hours.from: a time of day is wanted",
    ),
    (
        refused("items: {brand: x}\nwhen: {timezone: UTC, hours: {from: 08:00, until: 18:00, timezone: Asia/Tokyo}}"),
        6,
        "two time zones",
    ),
    (f"{DENY}\n- name: d\n  action: deny\n  items: {{brand: y}}", 4, "the name 'd' is taken by the rule in line 3"),
]


@pytest.mark.parametrize(("text", "line", "reason"), REFUSED_RULES)
def test_rules_that_are_refused(text: str, line: int, reason: str) -> None:
    with pytest.raises(RulesError) as caught:
        rules_of(text)
    assert reason in caught.value.reason
    assert caught.value.line == line


def test_the_first_of_several_is_named() -> None:
    with pytest.raises(RulesError) as caught:
        rules_of(refused("items: {bran: x}\nfactr: 2\nsurface: home"))
    assert caught.value.line == 5


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_rules(tmp_path / "nowhere.yaml", SURFACES)
    with pytest.raises(RulesError, match="cannot be read: Is a directory"):
        load_rules(tmp_path, SURFACES)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(RulesError, match="larger than"):
        load_rules(large, SURFACES)
    with pytest.raises(RulesError, match="r:2: not UTF-8"):
        parse_rules(b"version: 1\n# \xff\n", "r", SURFACES)


def test_a_byte_order_mark_and_foreign_line_ends_do_no_harm() -> None:
    text = document(DENY).replace("\n", "\r\n").encode("utf-8-sig")
    [rule] = parse_rules(text, "r", SURFACES).rules
    assert isinstance(rule, Deny)
