"""The versioned schema of a cleaned product, its input and the result of one cleaning.

Belongs here: types and their descriptions (the single source of a response schema, table columns and docs).
Does not belong here: how a value is found (`rules`) or whether the source supports it (`evidence`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1"
"""Part of every content-addressed key: raise it whenever a field of `CleanedAttributes` changes its "
"meaning."""

SizeUnit = Literal["g", "ml", "count", "cm"]


@dataclass(frozen=True)
class ProductText:
    """What a catalogue says of one product, as it came."""

    title: str
    brand: str | None = None
    size: str | None = None
    description: str | None = None


class Size(BaseModel):
    """How much one package holds, in canonical units: `6 x 330 ml` is amount 330, unit ml, count 6.

    A bare number of pieces (`12 ct`, `pack of 12`) is amount 12, unit count, count 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: float = Field(gt=0, description="Amount of one unit of the pack, in `unit`.")
    unit: SizeUnit = Field(
        description="Canonical unit: g (mass; a bare oz counts as mass), ml (volume), count (pieces), cm (length)."
    )
    count: int = Field(default=1, ge=1, description="How many such units a multipack holds; 1 if it is none.")

    def __str__(self) -> str:
        amount = f"{self.amount:g} pieces" if self.unit == "count" else f"{self.amount:g} {self.unit}"
        return amount if self.count == 1 else f"{self.count} x {amount}"


class CleanedAttributes(BaseModel):
    """The facts of one product. Every value is supported by the product's own text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    product_type: str | None = Field(
        default=None,
        description="What the product is, as a short lower-case noun phrase without brand, size or flavour.",
    )
    brand: str | None = Field(default=None, description="Brand as the catalogue spells it.")
    key_ingredients: tuple[str, ...] = Field(
        default=(), description="Main ingredients, flavours or materials, lower case, most important first."
    )
    dietary_tags: tuple[str, ...] = Field(
        default=(), description="Dietary claims in canonical form, for example gluten-free, vegan, organic."
    )
    tags: tuple[str, ...] = Field(
        default=(),
        description="Other facts: claims such as cruelty-free, and the descriptive words of the title, lower case.",
    )
    format: str | None = Field(
        default=None, description="Form or state of the product, for example frozen, canned, sliced, spray."
    )
    size: Size | None = Field(default=None, description="Package size in canonical units.")
    audience: str | None = Field(
        default=None, description="For whom it is made, for example babies, kids, men, women, dogs, cats."
    )


@dataclass(frozen=True)
class Unsupported:
    """A value that was found or proposed and dropped, and why."""

    field: str
    value: str
    reason: str


@dataclass(frozen=True)
class Cleaning:
    """The result of cleaning one text.

    `confidence` runs from 0 (nothing recognised) to 1; `source` names the kind of cleaner, so that a
    fallback can
    be told from the cleaner that was asked for.
    """

    attributes: CleanedAttributes
    confidence: float
    source: str
    unsupported: tuple[Unsupported, ...] = ()
