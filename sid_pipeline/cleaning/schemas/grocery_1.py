"""Grocery, version 1: the facts that a supermarket's search and recommendations need. The default schema."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sid_pipeline.cleaning.model import Attributes, Size, Support


class CleanedAttributes(Attributes):
    """The facts of one product. Every value is supported by the product's own text."""

    product_type: str | None = Field(
        default=None,
        description="What the product is, as a short lower-case noun phrase without brand, size or flavour.",
    )
    brand: str | None = Field(default=None, description="Brand as the catalogue spells it.")
    key_ingredients: tuple[str, ...] = Field(
        default=(), description="Main ingredients, flavours or materials, lower case, most important first."
    )
    dietary_tags: Annotated[tuple[str, ...], Support.CLAIM] = Field(
        default=(), description="Dietary claims in canonical form, for example gluten-free, vegan, organic."
    )
    tags: Annotated[tuple[str, ...], Support.CLAIM_OR_WORDS] = Field(
        default=(),
        description="Other facts: claims such as cruelty-free, and the descriptive words of the title, lower case.",
    )
    format: Annotated[str | None, Support.FORMAT] = Field(
        default=None, description="Form or state of the product, for example frozen, canned, sliced, spray."
    )
    size: Size | None = Field(default=None, description="Package size in canonical units.")
    audience: Annotated[str | None, Support.AUDIENCE] = Field(
        default=None, description="For whom it is made, for example babies, kids, men, women, dogs, cats."
    )
