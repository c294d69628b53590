"""Schemas: what follows from the built-in one, a user's own, and the faults that are named."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from sid_pipeline.cleaning.lexicon import Lexicon
from sid_pipeline.cleaning.llm.prompt import Prompt
from sid_pipeline.cleaning.model import ProductText, Size
from sid_pipeline.cleaning.rules import GROCERY, RULES_VERSION, RulesCleaner
from sid_pipeline.cleaning.run import cleaned_row
from sid_pipeline.cleaning.schema import Schema, SchemaError, _digest
from sid_pipeline.cleaning.schemas.grocery_1 import CleanedAttributes
from sid_pipeline.schemas import CLEANED_ATTRIBUTES, cleaned_table
from sid_pipeline.settings import SettingsError, load_settings

DOCS = Path(__file__).resolve().parents[3] / "docs" / "cleaning.md"
OWN = """
from typing import Annotated
from pydantic import Field
from sid_pipeline.cleaning.model import Attributes, Size, Support

class Fashion(Attributes):
    product_type: str | None = Field(None, description="the garment")
    colours: tuple[str, ...] = Field((), description="colours named")
    audience: Annotated[str | None, Support.AUDIENCE] = Field(None, description="for whom")
    size: Size | None = None
"""


def own(folder: Path, text: str = OWN, name: str = "Fashion") -> Schema:
    (folder / "fashion.py").write_text("from __future__ import annotations\n" + text)
    return Schema.load(f"fashion.py:{name}", folder)


def test_the_docs_hold_the_schemas_own_table():
    assert GROCERY.documentation() in DOCS.read_text(encoding="utf-8")


def test_one_model_gives_columns_and_response_schema():
    names = [field.name for field in GROCERY.fields]
    assert CLEANED_ATTRIBUTES.column_names == ["cleaner_id", "text_hash", *names, "confidence", "source", "unsupported"]
    answer = GROCERY.response_schema
    assert list(answer["properties"]) == names == answer["required"] and answer["additionalProperties"] is False
    assert "$ref" not in str(answer) and "$defs" not in str(answer)


def test_a_schema_of_ones_own_has_its_table_prompt_and_rules(tmp_path):
    schema = own(tmp_path)
    table = cleaned_table(schema)
    assert table.name == "cleaned_attributes_fashion_Fashion"
    assert [c.type for c in table.columns if c.name in ("product_type", "colours", "size")] == [
        "string", "array<string>", "string",
    ]  # fmt: skip
    (tmp_path / "fashion.md").write_text("Extract:\n{fields}\n")
    prompt = Prompt.load("fashion.md", schema, tmp_path)
    assert "`colours` (list of texts): colours named" in prompt.instruction
    [cleaning] = RulesCleaner(Lexicon.empty()).clean([ProductText("Cotton shirt for men", "Acme")])
    row = cleaned_row("h", cleaning, schema.fields)
    assert row["product_type"] and row["colours"] == [] and row["audience"] == "men"
    assert set(row) == set(table.column_names) - {"cleaner_id"}


def test_a_changed_description_or_prompt_is_another_key(tmp_path):
    one = own(tmp_path)
    two = own(tmp_path, OWN.replace("colours named", "the main colours"))
    assert one.id != two.id
    (tmp_path / "a.md").write_text("{fields}")
    before = Prompt.load("a.md", one, tmp_path).id
    (tmp_path / "a.md").write_text("Be brief. {fields}")
    assert Prompt.load("a.md", one, tmp_path).id != before


def test_what_supports_a_field_is_part_of_the_key_of_ones_own_schema_only(tmp_path):
    one = own(tmp_path)
    two = own(tmp_path, OWN.replace("Support.AUDIENCE", "Support.FORMAT"))
    assert one.model.model_json_schema() == two.model.model_json_schema() and one.id != two.id
    assert GROCERY.id == f"grocery_1-{_digest(CleanedAttributes.model_json_schema())}", "as it always was"


def test_the_rules_clean_again_for_a_changed_schema_of_ones_own(tmp_path):
    lexicon = Lexicon.empty()
    built_in = RulesCleaner(lexicon).id
    assert RulesCleaner(lexicon, Schema.load("grocery_1", tmp_path)).id == built_in
    assert built_in == f"rules-{RULES_VERSION}+{GROCERY.id}+lexicon-{lexicon.id}"
    one = RulesCleaner(lexicon, own(tmp_path))
    two = RulesCleaner(lexicon, own(tmp_path, OWN.replace("the garment", "the thing")))
    assert len({built_in, one.id, two.id}) == 3 and one.id.startswith("rules-")
    assert b"sid_schema" not in pickle.dumps(one), "the workers may lack the user's file"


def test_a_field_is_filled_by_its_own_kind_only(tmp_path):
    fields = {
        "brand": "tuple[str, ...] = ()", "dietary_tags": "str | None = None", "size": "str | None = None",
        "format": "Size | None = None", "audience": "str | None = None",
    }  # fmt: skip
    lines = "\n".join(f"    {name}: {kind}" for name, kind in fields.items())
    head = "from sid_pipeline.cleaning.model import Attributes, Size\n\nclass Other(Attributes):\n"
    schema = own(tmp_path, head + lines, "Other")
    given = CleanedAttributes(
        brand="Acme", dietary_tags=("vegan",), size=Size(amount=1, unit="g"), format="frozen", audience="men"
    )
    assert schema.row(given) == {
        "brand": [], "dietary_tags": None, "size": None, "format": None, "audience": "men",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["fallback", "reason", "id"])
def test_names_that_stand_beside_the_fields_are_taken(tmp_path, name):
    with pytest.raises(SchemaError, match=f"field '{name}' .* is a column of every cleaning"):
        own(tmp_path, OWN.replace("colours:", f"{name}:"))


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        (OWN, "Shoes", "no class 'Shoes'"),
        (OWN.replace("colours: tuple[str, ...]", "colours: int"), "Fashion", "field 'colours'"),
        (OWN.replace("colours:", "confidence:"), "Fashion", "is a column of every cleaning"),
        (OWN.replace("= Field((), description", "= Field(description"), "Fashion", "needs a default"),
        ("raise RuntimeError('boom')", "Fashion", "boom"),
    ],
)
def test_faults_of_a_schema_are_named(tmp_path, text, name, part):
    with pytest.raises(SchemaError, match=part):
        own(tmp_path, text, name)


@pytest.mark.parametrize(
    ("cleaning", "part"),
    [
        ("provider = 'openai'", "needs a model"),
        ("provider = 'gemini'\nmodel = 'x'\nbudget = 1.0", "budget needs a price"),
        ("provider = 'gemini'\nbatch = 'always'\nper_prompt = 4", "per_prompt 1"),
        ("api_key = 'secret'", "unknown setting 'cleaning.api_key'"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, cleaning, part):
    file = tmp_path / "sid.toml"
    file.write_text(f"[source]\nproducts = 'p.csv'\n[cleaning]\n{cleaning}\n")
    with pytest.raises(SettingsError, match=part):
        load_settings(file, env={})


def test_a_prompt_without_a_place_for_the_fields_is_refused(tmp_path):
    (tmp_path / "p.md").write_text("no fields")
    with pytest.raises(SchemaError, match="must hold"):
        Prompt.load("p.md", GROCERY, tmp_path)
    with pytest.raises(SchemaError, match="built in: grocery_1"):
        Prompt.load("nothing_1", GROCERY, tmp_path)
