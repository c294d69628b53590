"""What follows from a schema: its id, the response schema of an LLM, the table's columns, rows, and documentation.

Belongs here: everything derived from the pydantic model of a schema, the built-in ones and a user's own. What the
fields are belongs to `schemas`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from sid_pipeline.cleaning.model import Attributes, Size, Support

DEFAULT_SCHEMA = "grocery_1"


class SchemaError(ValueError):
    """A schema that cannot be used; the message names it, the field and the mend."""


@dataclass(frozen=True)
class FieldSpec:
    """One field of a schema: its kind decides the column, its support what the source text must hold."""

    name: str
    kind: str  # text, list or size
    support: Support
    description: str


@dataclass(frozen=True)
class Schema:
    """A pydantic model of cleaned attributes with its name."""

    name: str
    model: type[Attributes]

    @classmethod
    def load(cls, reference: str, root: Path) -> Schema:
        """A built-in schema by its name (`grocery_1`), or a user's own as `folder/file.py:Class`.

        Args:
            reference: the setting.
            root: folder that a relative file counts from.

        Raises:
            SchemaError: it does not exist, is no `Attributes` model, or has a field that no column can hold.
        """
        file, separator, name = reference.rpartition(":")
        if not separator:
            if not re.fullmatch(r"\w+", reference) or not _BUILT_IN.joinpath(f"{reference}.py").is_file():
                known = ", ".join(sorted(path.stem for path in _BUILT_IN.glob("*_[0-9]*.py")))
                raise SchemaError(
                    f"cleaning.attributes: no schema {reference!r}; built in: {known}. One of your own is named as "
                    "folder/file.py:Class"
                )
            module = importlib.import_module(f"sid_pipeline.cleaning.schemas.{reference}")
            model = next(m for m in vars(module).values() if _is_schema(m) and m.__module__ == module.__name__)
            return cls(reference, model).checked()
        module = _module_of(root / file)
        own = getattr(module, name, None)
        if own is None or not _is_schema(own):
            raise SchemaError(
                f"cleaning.attributes: {file} has no class {name!r} derived from cleaning.model.Attributes"
            )
        return cls(f"{Path(file).stem}.{name}", own).checked()

    def checked(self) -> Schema:
        """Itself, if every field can be stored and checked; else raises SchemaError."""
        if not self.fields:
            raise SchemaError(f"cleaning.attributes: schema {self.name} has no field")
        return self

    @cached_property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The fields in their order."""
        return tuple(self._field(name) for name in self.model.model_fields)

    @cached_property
    def id(self) -> str:
        """Name and a hash of the schema: a changed field, description or support is another schema, and another key.

        A built-in schema's hash is of its JSON schema alone: it changes by a new module, never by an edit.
        """
        document = self.model.model_json_schema()
        if self.model.__module__.startswith("sid_pipeline.cleaning.schemas."):
            return f"{self.name}-{_digest(document)}"
        fields = [[field.name, field.kind, field.support.value] for field in self.fields]
        return f"{self.name}-{_digest([document, fields])}"

    @cached_property
    def response_schema(self) -> dict[str, Any]:
        """JSON schema for an LLM's answer: no references, every field required and nullable, nothing else allowed."""
        document = self.model.model_json_schema()
        return _for_response(document, document.get("$defs", {}))

    def row(self, attributes: Attributes) -> dict[str, Any]:
        """Column values, sizes as text and lists as lists; see `row_of`."""
        return row_of(attributes, self.fields)

    def documentation(self) -> str:
        """The fields as a Markdown table."""
        lines = ["| field | kind | what supports it | meaning |", "| --- | --- | --- | --- |"]
        lines += [f"| `{f.name}` | {f.kind} | {f.support.value} | {f.description} |" for f in self.fields]
        return "\n".join(lines)

    def _field(self, name: str) -> FieldSpec:
        info = self.model.model_fields[name]
        kind = _kind(info.annotation)
        if kind is None or name in RESERVED:
            reason = "is a column of every cleaning" if kind else "must be str | None, tuple[str, ...] or Size | None"
            raise SchemaError(f"cleaning.attributes: field {name!r} of schema {self.name} {reason}")
        if info.is_required():
            raise SchemaError(f"cleaning.attributes: field {name!r} of schema {self.name} needs a default: None or ()")
        support = next((mark for mark in info.metadata if isinstance(mark, Support)), Support.WORDS)
        return FieldSpec(name, kind, support, info.description or name)


# Columns that stand beside the fields in some table or view, and the key of a model's answer.
RESERVED = frozenset(
    {
        "cleaner_id", "text_hash", "confidence", "source", "unsupported", "product_id", "title", "fallback", "reason",
        "id",
    }
)  # fmt: skip
COLUMN_TYPES: Mapping[str, str] = {"text": "string", "list": "array<string>", "size": "string"}
_VALUES: Mapping[str, type | tuple[type, ...]] = {"text": str, "list": (tuple, list), "size": Size}
_BUILT_IN = Path(__file__).with_name("schemas")


def row_of(attributes: Attributes, fields: tuple[FieldSpec, ...]) -> dict[str, Any]:
    """Column values of some fields; what `attributes` does not have, or has of another kind, is empty."""
    row: dict[str, Any] = {}
    for field in fields:
        value = getattr(attributes, field.name, None)
        fits = isinstance(value, _VALUES[field.kind])
        if field.kind == "list":
            row[field.name] = list(value or ()) if fits else []
        else:
            row[field.name] = str(value) if fits else None
    return row


def _is_schema(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Attributes) and value is not Attributes


def _module_of(file: Path) -> types.ModuleType:
    if not file.is_file() or file.suffix != ".py":
        raise SchemaError(f"cleaning.attributes: {file} is no Python file")
    name = f"sid_schema_{file.stem}_{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pydantic looks annotations up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may fail in any way
        raise SchemaError(f"cleaning.attributes: {file} cannot be loaded: {error}") from error
    return module


def _kind(annotation: Any) -> str | None:
    if get_origin(annotation) is tuple and get_args(annotation) == (str, ...):
        return "list"
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        if inner == [str]:
            return "text"
        if inner == [Size]:
            return "size"
    return None


def _for_response(node: Any, definitions: Mapping[str, Any]) -> Any:
    """The node with references put in, titles and defaults left out, objects closed and complete."""
    if isinstance(node, list):
        return [_for_response(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _for_response(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    dropped = {"title", "default", "$defs", "exclusiveMinimum"}
    result = {key: _for_response(value, definitions) for key, value in node.items() if key not in dropped}
    if "properties" in node:
        # A field may be called `title` too: only keywords are dropped, never properties.
        result["properties"] = {name: _for_response(value, definitions) for name, value in node["properties"].items()}
        result["required"] = list(node["properties"])
        result["additionalProperties"] = False
    return result


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
