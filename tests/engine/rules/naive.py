"""What selectors mean, one item at a time, on the plain YAML data: the obvious oracle."""

from typing import Any


def matches(selector: dict[str, Any], item: dict[str, Any]) -> bool:
    return all(_holds(key, wanted, item) for key, wanted in selector.items())


def _holds(key: str, wanted: Any, item: dict[str, Any]) -> bool:
    if key == "not":
        return not matches(wanted, item)
    if key == "any_of":
        return any(matches(part, item) for part in wanted)
    if key == "all_of":
        return all(matches(part, item) for part in wanted)
    if key == "price":
        price = item["price"]
        return price is not None and wanted.get("min", 0) <= price <= wanted.get("max", float("inf"))
    values = wanted if isinstance(wanted, list) else [wanted]
    if key == "attribute":
        return any(token in values for token in (item["attributes"] or "").split("|"))
    return item["item_id" if key == "item_ids" else key] in values
