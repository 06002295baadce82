"""Where in the text something stands."""

import textwrap

from engine.rules.document import Document, read_document

TEXT = """
    version: 1
    rules:
      - name: a
        items:
          brand:
            - x
            - y
      - name: b
"""


def test_each_place_has_its_line() -> None:
    document = read_document(textwrap.dedent(TEXT).lstrip(), "r.yaml")
    assert document.data == {"version": 1, "rules": [{"name": "a", "items": {"brand": ["x", "y"]}}, {"name": "b"}]}
    expected = {(): 1, ("version",): 1, ("rules",): 2, ("rules", 0): 3, ("rules", 0, "name"): 3}
    expected |= {("rules", 0, "items"): 4, ("rules", 0, "items", "brand"): 5, ("rules", 0, "items", "brand", 1): 7}
    expected |= {("rules", 1): 8}
    assert {place: document.line(place) for place in expected} == expected


def test_what_the_text_lacks_is_where_it_would_stand() -> None:
    document = read_document(textwrap.dedent(TEXT).lstrip(), "r.yaml")
    assert document.line(("rules", 0, "items", "brand", 5, "deeper")) == 5
    assert document.line(("rules", 1, "items")) == 8
    assert document.line(("rules", 7)) == 2
    assert document.line(("nothing",)) == 1
    assert Document("r.yaml", None, {}).line(("rules",)) == 0
