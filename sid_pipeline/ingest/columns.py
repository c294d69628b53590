"""Which column of a source carries which field, and what to say when it is not there. Pure Python."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sid_pipeline.ingest.errors import InputError
from sid_pipeline.settings import ColumnMap, OfferColumnMap

# Names that other catalogues use, for the hint when a required column is missing.
USUAL_NAMES = {
    "product_id": ("id", "sku", "asin", "uniq_id", "item_id", "product_code", "index"),
    "title": ("name", "product_name", "product_title", "item_name", "product"),
    "retailer_id": ("retailer", "store_id", "shop_id", "seller_id"),
}


@dataclass(frozen=True)
class Field:
    """One field of ours and the source's columns for it (several only for category levels)."""

    name: str
    columns: tuple[str, ...]
    required: bool = False
    explicit: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of its columns in the raw frame; several are `category_0` (the root's), `category_1`, ..."""
        if len(self.columns) < 2:
            return (self.name,)[: len(self.columns)]
        return tuple(f"{self.name}_{level}" for level in range(len(self.columns)))


def product_fields(columns: ColumnMap) -> tuple[Field, ...]:
    """The fields of a product source in table order. An empty name leaves an optional field out."""
    return (
        *_fields(columns, ("product_id", "title"), ("brand", "size", "description", "price")),
        Field("category", _names(columns.category), explicit="category" in columns.model_fields_set),
    )


def offer_fields(columns: OfferColumnMap) -> tuple[Field, ...]:
    """The fields of an offers source."""
    return _fields(columns, ("product_id", "retailer_id"), ("available", "popularity"))


def _fields(columns: ColumnMap | OfferColumnMap, required: Sequence[str], optional: Sequence[str]) -> tuple[Field, ...]:
    return tuple(
        Field(name, _names(getattr(columns, name)), name in required, name in columns.model_fields_set)
        for name in (*required, *optional)
    )


def _names(value: str | list[str] | None) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value or []
    return tuple(name for name in names if name.strip())


def resolve(fields: Iterable[Field], available: Sequence[str], where: str, section: str) -> dict[str, str]:
    """Map the raw frame's column names to the source's, leaving out optional defaults that are absent.

    Args:
        fields: what is wanted.
        available: the source's columns.
        where: the file, for messages.
        section: the settings section that maps columns, e.g. `source.columns`.

    Raises:
        InputError: a required or an explicitly mapped column is missing, or a needed one occurs twice.
    """
    found: dict[str, str] = {}
    for field in fields:
        for slot, column in zip(field.slots, field.columns, strict=True):
            if column in available:
                if list(available).count(column) > 1:
                    raise InputError(f"{where} has the column {column!r} more than once. Rename all but one.")
                found[slot] = column
            elif field.required or field.explicit:
                raise InputError(_missing(field, column, available, where, section))
    return found


def _missing(field: Field, column: str, available: Sequence[str], where: str, section: str) -> str:
    has = ", ".join(repr(name) for name in available[:40]) or "no column"
    if len(available) > 40:
        has += f" and {len(available) - 40} more"
    message = f"{where} has no column {column!r} for the {field.name}. It has: {has}."
    delimiter = _other_delimiter(available)
    if delimiter:
        name = {"\t": "\\t"}.get(delimiter, delimiter)
        return f'{message} Its fields seem to be separated otherwise: set [source] delimiter = "{name}".'
    near = _nearest(field.name, column, available)
    hint = f" Did you mean {near!r}?" if near else ""
    value = near or "THE COLUMN'S NAME"
    if field.name == "category" and len(field.columns) > 1:
        levels = ", ".join(f'"{value if name == column else name}"' for name in field.columns)
        return f"{message}{hint} Set it in the settings: [{section}] category = [{levels}]."
    leave_out = "" if field.required else f', or {field.name} = "" if there is none'
    return f'{message}{hint} Set it in the settings: [{section}] {field.name} = "{value}"{leave_out}.'


def _other_delimiter(available: Sequence[str]) -> str | None:
    if len(available) != 1:
        return None
    return next((mark for mark in (";", "\t", "|", ",") if mark in available[0]), None)


def _nearest(field: str, column: str, available: Sequence[str]) -> str | None:
    by_folded = {name.strip().casefold().replace(" ", "_").replace("-", "_"): name for name in available}
    for usual in (column.casefold(), field, *USUAL_NAMES.get(field, ())):
        if usual in by_folded:
            return by_folded[usual]
    close = difflib.get_close_matches(column.casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None
