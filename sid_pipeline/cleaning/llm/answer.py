"""From an answer to checked attributes: parsing, the schema, and the truth rule. Trusts nothing that it reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from sid_pipeline.cleaning.evidence import Evidence, verify
from sid_pipeline.cleaning.llm.prompt import Text, request_ids
from sid_pipeline.cleaning.model import Attributes, Cleaning, Unsupported
from sid_pipeline.cleaning.schema import Schema
from sid_pipeline.cleaning.sizes import read_size

MAX_VALUES = 12
MAX_VALUE_CHARS = 80

_FENCE = re.compile(r"^\s*```(?:json)?\s*|\s*```\s*$")


class MalformedAnswer(ValueError):
    """An answer that is no JSON of the asked shape; the message says what is wrong with it."""


def read_answer(
    answer: str, texts: Sequence[Text], schema: Schema, source: str
) -> tuple[dict[str, Cleaning], dict[str, str]]:
    """Read what a model says of some products.

    Args:
        answer: as it came.
        texts: the products that were asked for.
        schema: of the attributes.
        source: name of the provider.

    Returns:
        Cleanings by text hash, and for every other text what is wrong with its part of the answer.

    Raises:
        MalformedAnswer: the answer as a whole cannot be read.
    """
    entries = _entries(answer)
    wanted = dict(zip(request_ids(texts), texts, strict=True))
    seen: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            seen.setdefault(entry["id"], []).append(entry)
    cleaned: dict[str, Cleaning] = {}
    faults: dict[str, str] = {}
    for key, text in wanted.items():
        found = seen.get(key, [])
        if len(found) != 1:
            faults[text.text_hash] = f"product {key} has {len(found)} entries instead of one"
            continue
        try:
            attributes = schema.model.model_validate({k: v for k, v in found[0].items() if k != "id"})
        except ValidationError as error:
            faults[text.text_hash] = f"product {key}: {_first(error)}"
            continue
        cleaned[text.text_hash] = _checked(attributes, text, schema, source)
    return cleaned, faults


def misses_the_plain(cleaning: Cleaning, text: Text) -> bool:
    """True where an answer leaves out what the text plainly states: a size in the title, or what the product is.

    In a request of several products this is how a row shows that another one's text has meddled with it.
    """
    found = cleaning.attributes
    if hasattr(found, "product_type") and not found.product_type:
        return True
    return hasattr(found, "size") and found.size is None and read_size(text.product.title).size is not None


def unfenced(answer: str) -> str:
    """An answer without the Markdown fence that some models put around their JSON."""
    return _FENCE.sub("", answer)


def _entries(answer: str) -> list[Any]:
    try:
        document = json.loads(unfenced(answer))
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise MalformedAnswer(f"it is no JSON ({error})") from error
    entries = document.get("products") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise MalformedAnswer('it has no list "products"')
    return entries


def _checked(attributes: Attributes, text: Text, schema: Schema, source: str) -> Cleaning:
    tidy, overlong = _tidied(attributes, schema)
    kept, unsupported = verify(tidy, Evidence.of_product(text.product), schema.fields)
    dropped = (*overlong, *unsupported)
    stated = sum(1 if not isinstance(value, tuple) else len(value) for value in _values(kept, schema))
    confidence = stated / (stated + len(dropped)) if stated else 0.0
    if "product_type" in schema.model.model_fields and not getattr(kept, "product_type", None):
        confidence *= 0.5
    return Cleaning(kept, round(confidence, 3), source, dropped)


def _values(attributes: Attributes, schema: Schema) -> list[Any]:
    values = [getattr(attributes, field.name) for field in schema.fields]
    return [value for value in values if value not in (None, ())]


def _tidied(attributes: Attributes, schema: Schema) -> tuple[Attributes, list[Unsupported]]:
    """Without blanks and repetitions, and without values that are no attribute but prose."""
    update: dict[str, Any] = {}
    dropped: list[Unsupported] = []
    for field in schema.fields:
        value = getattr(attributes, field.name)
        if field.kind == "size" or value in (None, ()):
            continue
        values = [" ".join(item.split()) for item in (value if field.kind == "list" else (value,))]
        values = list(dict.fromkeys(item for item in values if item))
        fitting = [item for item in values if len(item) <= MAX_VALUE_CHARS]
        dropped += [Unsupported(field.name, f"{v[:40]}...", "too long") for v in values if v not in fitting]
        if field.kind == "list":
            dropped += [Unsupported(field.name, item, "too many values") for item in fitting[MAX_VALUES:]]
            update[field.name] = tuple(fitting[:MAX_VALUES])
        else:
            update[field.name] = fitting[0] if fitting else None
    return attributes.model_copy(update=update), dropped


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
