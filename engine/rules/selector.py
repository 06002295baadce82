"""Which items a rule is about: the `items` of a rule, its schema, and what it means over a table of items."""

import math
from functools import reduce
from typing import Annotated, Any, Final

import polars as pl
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from engine.contract.limits import LIST_SEPARATOR, MAX_ID_BYTES
from engine.data.schema import ITEMS

# The columns that selectors and caps read.
COLUMNS: Final = ("item_id", "category", "brand", "seller", "price", "attributes")


class Part(BaseModel):
    """What all parts of a rules file share: nothing unknown, nothing converted, nothing changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def refuse(reason: str) -> PydanticCustomError:
    """The error of a check of our own; the text reaches the reader as it is."""
    return PydanticCustomError("rules", "{reason}", {"reason": reason})


def _as_tuple(found: Any) -> Any:
    """One value counts as a list of one."""
    listed = found if isinstance(found, list) else [found]
    if not listed:
        raise refuse("an empty list matches nothing; leave the key out or name a value")
    return tuple(listed)


def _in_order(values: tuple[str, ...]) -> tuple[str, ...]:
    """Order and repetitions mean nothing: lists of the same values compare equal, and rules share a bitmap."""
    return tuple(sorted(set(values)))


def _plain_list(found: Any) -> Any:
    if not isinstance(found, list):
        raise refuse("a list is wanted")
    if not found:
        raise refuse("an empty list; leave the key out or name a value")
    return tuple(found)


Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_BYTES)]
OneOrMany = Annotated[tuple[Text, ...], BeforeValidator(_as_tuple), AfterValidator(_in_order)]


class PriceRange(Part):
    """Inclusive at both ends; an item without a price is in no range."""

    min: float | None = Field(None, ge=0)
    max: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _a_range(self) -> "PriceRange":
        if self.min is None and self.max is None:
            raise refuse("a price range needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise refuse(f"min {self.min:g} is above max {self.max:g}")
        return self


class Selector(Part):
    """Items by what they are. All keys that are given must hold; of a list of values any one will do.

    An item without a value (no brand, say) matches no list of values, and so matches its `not`.
    """

    item_ids: OneOrMany | None = None
    category: OneOrMany | None = None
    brand: OneOrMany | None = None
    seller: OneOrMany | None = None
    attribute: OneOrMany | None = None
    price: PriceRange | None = None
    none_of: "Selector | None" = Field(None, alias="not")
    any_of: Annotated[tuple["Selector", ...], BeforeValidator(_plain_list)] | None = None
    all_of: Annotated[tuple["Selector", ...], BeforeValidator(_plain_list)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Selector":
        if all(value is None for _, value in self):
            raise refuse("selects nothing in particular; name a category, brand, seller, attribute, price or item_ids")
        for value in self.attribute or ():
            if LIST_SEPARATOR in value:
                raise refuse(f"the attribute {value!r} holds {LIST_SEPARATOR!r}, which separates attributes; list them")
        return self

    def expression(self) -> pl.Expr:
        """bool, never null: whether each row of a frame with COLUMNS matches.

        Cost: a few vectorised passes; a million rows take some 10 ms a key, and 200 ms for attributes.
        """
        parts = [_among(name, values) for name, values in self._columns() if values is not None]
        if self.attribute is not None:
            # Between separators a whole token is a substring; "sale" must not find "wholesale".
            around = pl.concat_str(pl.lit(LIST_SEPARATOR), pl.col("attributes"), pl.lit(LIST_SEPARATOR))
            tokens = [f"{LIST_SEPARATOR}{value}{LIST_SEPARATOR}" for value in self.attribute]
            parts.append(around.str.contains_any(tokens).fill_null(False))
        if self.price is not None:
            low = -math.inf if self.price.min is None else self.price.min
            high = math.inf if self.price.max is None else self.price.max
            parts.append(pl.col("price").is_between(low, high).fill_null(False))
        if self.none_of is not None:
            parts.append(~self.none_of.expression())
        if self.any_of is not None:
            parts.append(reduce(pl.Expr.or_, (part.expression() for part in self.any_of)))
        parts.extend(part.expression() for part in self.all_of or ())
        return reduce(pl.Expr.and_, parts)

    def decided_by_id(self, item_id: str) -> bool | None:
        """Whether the item matches, as far as its id alone tells; None where its other properties decide."""
        parts: list[bool | None] = [None for _, values in self._columns()[1:] if values is not None]
        if self.attribute is not None or self.price is not None:
            parts.append(None)
        if self.item_ids is not None:
            parts.append(item_id in self.item_ids)
        if self.none_of is not None:
            inner = self.none_of.decided_by_id(item_id)
            parts.append(None if inner is None else not inner)
        if self.any_of is not None:
            options = [part.decided_by_id(item_id) for part in self.any_of]
            parts.append(True if True in options else None if None in options else False)
        parts.extend(part.decided_by_id(item_id) for part in self.all_of or ())
        return False if False in parts else None if None in parts else True

    def _columns(self) -> list[tuple[str, tuple[str, ...] | None]]:
        return [
            ("item_id", self.item_ids),
            ("category", self.category),
            ("brand", self.brand),
            ("seller", self.seller),
        ]


def readable(items: pl.DataFrame) -> pl.DataFrame:
    """COLUMNS of a frame of items; those that it lacks (older bundles have no `seller`) are null."""
    absent = [pl.lit(None, ITEMS.polars[name]).alias(name) for name in COLUMNS if name not in items.columns]
    return items.with_columns(absent).select(COLUMNS)


def _among(column: str, values: tuple[str, ...]) -> pl.Expr:
    if len(values) == 1:
        return (pl.col(column) == values[0]).fill_null(False)
    return pl.col(column).is_in(pl.Series(values).implode()).fill_null(False)
