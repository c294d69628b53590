"""The text that is embedded: built from a product's fields by a template, here and nowhere else.

A template is a list of parts such as `"{title}"` or `"for {audience}"`. A part is left out when none of its
fields has a value, so a missing brand leaves no stray punctuation. Parts are joined by `. `.

Cleaned attributes overlap by design: `turmeric powder` has turmeric as ingredient and powder as format. Said twice,
such words pull a vector towards themselves, so a template can leave out what its text has said already.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

_WORD = re.compile(r"\w+")
RAW_FIELDS = ("title", "brand", "size", "description")


def check_template(template: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError, naming the part, when a template uses a field that the texts do not have."""
    for part in template:
        for field in template_fields(part):
            if field not in known:
                raise ValueError(f"template part {part!r} names {field!r}; there are {', '.join(known)}")


def render(template: Sequence[str], fields: Mapping[str, Any], say_once: bool = False) -> str:
    """The text of one product.

    Args:
        template: the parts.
        fields: values by field name; lists are joined by `, `, None and empty values count as missing.
        say_once: a value, or an item of a list, counts as missing when earlier values hold all of its words.

    Returns:
        One line of text; empty when no part has a value.
    """
    parts = []
    said: set[str] | None = set() if say_once else None
    for part in template:
        values = {name: _text(fields.get(name), said) for name in template_fields(part)}
        if not values or any(values.values()):
            parts.append(part.format(**values))
    return " ".join(". ".join(part.strip().rstrip(".") for part in parts if part.strip()).split())


def text_hash(text: str) -> str:
    """SHA-256 of a text, hexadecimal: its key in the store of embeddings."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def template_fields(part: str) -> tuple[str, ...]:
    """The fields that a part of a template names."""
    return tuple(name for _, name, _, _ in string.Formatter().parse(part) if name)


def _text(value: Any, said: set[str] | None) -> str:
    """The value as text without what is in `said` (None: nothing counts as said), which learns its words."""
    items = [str(item) for item in value] if isinstance(value, (list, tuple)) else [] if value is None else [str(value)]
    return ", ".join(item for item in items if said is None or _is_news(item, said))


def _is_news(item: str, said: set[str]) -> bool:
    words = set(_WORD.findall(item.casefold()))
    news = not words <= said
    said |= words
    return news
