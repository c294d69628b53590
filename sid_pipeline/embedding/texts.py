"""The text that is embedded: built from a product's fields by a template, here and nowhere else.

A template is a list of parts such as `"{title}"` or `"for {audience}"`. A part is left out when none of its
fields has a value, so a missing brand leaves no stray punctuation. Parts are joined by `. `.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

RAW_FIELDS = ("title", "brand", "size", "description")


def check_template(template: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError, naming the part, when a template uses a field that the texts do not have."""
    for part in template:
        for field in template_fields(part):
            if field not in known:
                raise ValueError(f"template part {part!r} names {field!r}; there are {', '.join(known)}")


def render(template: Sequence[str], fields: Mapping[str, Any]) -> str:
    """The text of one product.

    Args:
        template: the parts.
        fields: values by field name; lists are joined by `, `, None and empty values count as missing.

    Returns:
        One line of text; empty when no part has a value.
    """
    parts = []
    for part in template:
        values = {name: _text(fields.get(name)) for name in template_fields(part)}
        if not values or any(values.values()):
            parts.append(part.format(**values))
    return " ".join(". ".join(part.strip().rstrip(".") for part in parts if part.strip()).split())


def text_hash(text: str) -> str:
    """SHA-256 of a text, hexadecimal: its key in the store of embeddings."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def template_fields(part: str) -> list[str]:
    """The fields that a part of a template names."""
    return [name for _, name, _, _ in string.Formatter().parse(part) if name]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)
