"""What cleaning takes and gives: a product's text, the base of every schema, and the result of one cleaning.

Belongs here: types. Does not belong here: a schema's fields (`schemas`), what is made from them (`schema`), how a
value is found (`rules`, `llm`) or whether the source supports it (`evidence`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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


class Support(Enum):
    """What in the source text supports a value of a field; a field without this mark needs its WORDS."""

    WORDS = "words"
    """The value's words stand in the text, whatever their case, number and accents."""
    CLAIM = "claim"
    """The text makes the claim (`without gluten` supports `gluten-free`) and does not deny it."""
    CLAIM_OR_WORDS = "claim or words"
    FORMAT = "format"
    """A word of the text stands for the canonical form: `slices` supports `sliced`."""
    AUDIENCE = "audience"
    """A word of the text stands for the canonical audience: `infant` supports `babies`."""


class Attributes(BaseModel):
    """Base of every schema. A field is text (`str | None`), a list (`tuple[str, ...]`) or a size (`Size | None`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Unsupported:
    """A value that was found or proposed and dropped, and why."""

    field: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value} ({self.reason})"


@dataclass(frozen=True)
class NotCleaned:
    """A text that a cleaner could not clean, and why: the class of the failure and a sentence."""

    failure: str
    sentence: str


@dataclass(frozen=True)
class Cleaning:
    """The result of cleaning one text.

    `confidence` runs from 0 (nothing recognised) to 1; `source` names the kind of cleaner, so that a fallback can be
    told from the cleaner that was asked for.
    """

    attributes: Attributes
    confidence: float
    source: str
    unsupported: tuple[Unsupported, ...] = ()
