"""From products to a request: the versioned prompt file, and the products as JSON data.

One request holds one product by default, or several. Among several each bears an id that this process draws by a
secret of its own, so that the author of another product's text cannot know it and answer in its name. A product alone
has nobody to be told from: its id follows from its text, so that the answer of a batch job is known by a later process.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sid_pipeline.cleaning.llm.provider import Request
from sid_pipeline.cleaning.markup import MAX_DESCRIPTION_CHARS, MAX_TITLE_CHARS, drop_instructions, strip_markup
from sid_pipeline.cleaning.model import ProductText
from sid_pipeline.cleaning.schema import Schema, SchemaError

ID_DIGITS = 8
_SECRET = secrets.token_bytes(32)
_FIELDS = "{fields}"
_BUILT_IN = Path(__file__).resolve().parent.parent / "prompts"


@dataclass(frozen=True)
class Text:
    """A product's text with its hash, the key of everything that is known of it."""

    text_hash: str
    product: ProductText


def request_ids(texts: Sequence[Text]) -> list[str]:
    """The ids under which one request names its products, in their order."""
    if len(texts) == 1:
        return [texts[0].text_hash[:ID_DIGITS]]
    size = ID_DIGITS // 2
    return [hashlib.blake2b(text.text_hash.encode(), key=_SECRET, digest_size=size).hexdigest() for text in texts]


@dataclass(frozen=True)
class Prompt:
    """An instruction with a schema put in."""

    name: str
    instruction: str
    schema: Schema

    @classmethod
    def load(cls, reference: str, schema: Schema, root: Path) -> Prompt:
        """A built-in prompt by its name (`grocery_1`), or a file of a user's own (`prompts/fashion.md`).

        Raises:
            SchemaError: the file is missing, or has no place for the fields.
        """
        built_in = re.fullmatch(r"\w+", reference) is not None
        file = _BUILT_IN / f"{reference}.md" if built_in else root / reference
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(sorted(path.stem for path in _BUILT_IN.glob("*.md")))
            hint = f"; built in: {known}" if built_in else ""
            raise SchemaError(f"cleaning.prompt: {file} cannot be read ({error}){hint}") from error
        if _FIELDS not in text:
            raise SchemaError(f"cleaning.prompt: {file} must hold {_FIELDS}, where the schema's fields are put in")
        return cls(file.stem, text.replace(_FIELDS, _described(schema)), schema)

    @cached_property
    def id(self) -> str:
        """Name and a hash of the instruction: changed words are another prompt, and another key."""
        return f"{self.name}-{hashlib.sha256(self.instruction.encode()).hexdigest()[:8]}"

    @cached_property
    def response_schema(self) -> dict[str, Any]:
        """JSON schema of an answer: one entry a product."""
        fields = self.schema.response_schema
        entry = {
            "type": "object",
            "properties": {"id": {"type": "string"}, **fields["properties"]},
            "required": ["id", *fields["required"]],
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "properties": {"products": {"type": "array", "items": entry}},
            "required": ["products"],
            "additionalProperties": False,
        }

    def request(self, texts: Sequence[Text], max_output_tokens: int) -> Request:
        """The request for some products; `max_output_tokens` counts for each."""
        named = zip(request_ids(texts), texts, strict=True)
        products = json.dumps([{"id": name, **_data(text)} for name, text in named], ensure_ascii=False)
        return Request(self.instruction, (products,), self.response_schema, max_output_tokens * len(texts))


def _data(text: Text) -> Mapping[str, str]:
    """What a model is shown of a product: no markup, no sentence that instructs a machine, no more than is read."""
    product = text.product
    shown = {
        "title": product.title[:MAX_TITLE_CHARS],
        "brand": (product.brand or "")[:MAX_TITLE_CHARS],
        "size": (product.size or "")[:MAX_TITLE_CHARS],
        "description": (product.description or "")[:MAX_DESCRIPTION_CHARS],
    }
    shown = {name: drop_instructions(strip_markup(value)) for name, value in shown.items()}
    return {name: value for name, value in shown.items() if value}


def _described(schema: Schema) -> str:
    kinds = {"text": "text or null", "list": "list of texts", "size": "object with amount, unit and count, or null"}
    return "\n".join(f"- `{field.name}` ({kinds[field.kind]}): {field.description}" for field in schema.fields)
