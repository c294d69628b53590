"""One `TableSpec` per Delta table: the single source of its columns, key, partitioning and description.

From a spec come the Spark schema, the Arrow schema of the code that fills it, Dagster's column schema and the
docs. What does not belong here: reading or writing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sid_pipeline.cleaning.schema import COLUMN_TYPES, DEFAULT_SCHEMA, Schema
from sid_pipeline.cleaning.schemas.grocery_1 import CleanedAttributes

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column: Spark SQL type name, and what it holds."""

    name: str
    type: str
    description: str
    nullable: bool = True


@dataclass(frozen=True)
class TableSpec:
    """A Delta table. `key` identifies a row within its partition; `properties` are Delta's table properties."""

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()

    @property
    def column_names(self) -> list[str]:
        """Names in order, partition columns included."""
        return [column.name for column in self.columns]

    def ddl(self, without: tuple[str, ...] = ()) -> str:
        """Spark DDL of the columns, e.g. for `mapInArrow`; `without` leaves some out."""
        return ", ".join(f"`{c.name}` {c.type}" for c in self.columns if c.name not in without)

    def arrow(self, without: tuple[str, ...] = ()) -> pa.Schema:
        """The Arrow schema that matches `ddl`."""
        import pyarrow as pa

        types = {
            "string": pa.string(),
            "binary": pa.binary(),
            "int": pa.int32(),
            "bigint": pa.int64(),
            "float": pa.float32(),
            "double": pa.float64(),
            "boolean": pa.bool_(),
            "date": pa.date32(),
            "timestamp": pa.timestamp("us", tz="UTC"),
            "array<string>": pa.list_(pa.string()),
            "array<int>": pa.list_(pa.int32()),
        }
        return pa.schema([pa.field(c.name, types[c.type]) for c in self.columns if c.name not in without])


def _c(name: str, type: str, description: str) -> Column:
    return Column(name, type, description)


def _k(name: str, type: str, description: str) -> Column:
    return Column(name, type, description, nullable=False)


SNAPSHOT = _k("snapshot", "string", "the catalogue day, YYYY-MM-DD")
RELEASE = _k("release", "string", "the vocabulary release")

PRODUCTS = TableSpec(
    "products",
    "A night's products: every accepted row of the source, one row a product.",
    (
        SNAPSHOT,
        _k("product_id", "string", "the retailer's product id"),
        _k("title", "string", "the product's name, control characters removed, white space folded"),
        _c("brand", "string", "brand as the source gives it"),
        _c("size", "string", "size as the source gives it"),
        _c("description", "string", "description as the source gives it, markup and all"),
        _c("price", "double", "price; null where the source has none or it is no number"),
        _c("category", "array<string>", "category path from the root, null when the source gives none"),
        _k(
            "text_hash",
            "string",
            "SHA-256 of title, brand, size and description: what is cleaned and embedded",
        ),
        _c("source_file", "string", "the file the row came from"),
        _c("source_row", "bigint", "its number in that file, the first data row is 1"),
    ),
    key=("product_id",),
    partition_by=("snapshot",),
)

REJECTED_PRODUCTS = TableSpec(
    "rejected_products",
    "Rows of a night's source that were not accepted, each with the rule it broke and how to mend it.",
    (
        SNAPSHOT,
        _k("source_file", "string", "the file the row came from"),
        _c("source_row", "bigint", "its number in that file, the first data row is 1"),
        _c("product_id", "string", "the row's product id where one could be read"),
        _k("rule", "string", "short name of the rule it broke"),
        _k("message", "string", "what is wrong and how to mend it"),
        _c("raw", "string", "the row as it came, at most 2,000 characters"),
    ),
    key=("source_file", "source_row"),
    partition_by=("snapshot",),
)

OFFERS = TableSpec(
    "offers",
    "Which retailer sells a product, and how popular it is there: feeds the (retailer, SID) index.",
    (
        SNAPSHOT,
        _k("product_id", "string", "the product"),
        _k("retailer_id", "string", "the retailer"),
        _k("available", "boolean", "whether it can be bought"),
        _k("popularity", "double", "orders or another count; products of a SID are sorted by it"),
    ),
    key=("product_id", "retailer_id"),
    partition_by=("snapshot",),
)


def cleaned_table(schema: Schema) -> TableSpec:
    """The table of a schema's cleanings: one column a field. A schema of a user's own has a table of its own."""
    own = "" if schema.name == DEFAULT_SCHEMA else f"_{schema.name.replace('.', '_')}"
    return TableSpec(
        f"cleaned_attributes{own}",
        "What cleaning found in each distinct text; content-addressed, so a text is never paid for twice.",
        (
            _k("cleaner_id", "string", "cleaner, model, prompt, schema and lexicon versions"),
            _k("text_hash", "string", "products.text_hash of the text"),
            *(_c(field.name, COLUMN_TYPES[field.kind], field.description) for field in schema.fields),
            _k("confidence", "double", "0 (nothing recognised) to 1"),
            _k("source", "string", "the kind of cleaner that filled the row: rules, gemini, openai"),
            _k("unsupported", "array<string>", "values dropped because the text does not support them, with reasons"),
        ),
        key=("text_hash",),
        partition_by=("cleaner_id",),
    )


CLEANED_ATTRIBUTES = cleaned_table(Schema(DEFAULT_SCHEMA, CleanedAttributes))

SNAPSHOT_CLEANINGS = TableSpec(
    "snapshot_cleanings",
    "Which cleaning each distinct text of a snapshot uses: the asked-for cleaner's, or for tonight a fallback's.",
    (
        SNAPSHOT,
        _k("text_hash", "string", "products.text_hash of the text"),
        _k("cleaner_id", "string", "whose row of cleaned_attributes is used"),
        _k("fallback", "boolean", "another cleaner than the one asked for stands in until the next night"),
        _c("reason", "string", "why it fell back"),
    ),
    key=("text_hash",),
    partition_by=("snapshot",),
)

CLEANING_CALLS = TableSpec(
    "cleaning_calls",
    "Every answer of a language model as it came, with what it cost: the ledger of cleaning, and its raw responses.",
    (
        _k("cleaner_id", "string", "cleaner, model, prompt and schema versions"),
        _k("call_id", "string", "the call; the answer of a batch job keeps its id however often it is collected"),
        _k("run_id", "string", "the Dagster run that paid for it"),
        _k("at", "timestamp", "when the answer was read"),
        _k("day", "string", "the UTC day of `at`"),
        _k("provider", "string", "the service"),
        _k("model", "string", "the model as the service names it in its answer"),
        _k("mode", "string", "sync or batch"),
        _k("text_hashes", "array<string>", "the texts that were asked for"),
        _k("outcome", "string", "ok, or why the answer could not be used"),
        _k("detail", "string", "what is wrong with it, in words"),
        _k("raw", "string", "the answer as it came"),
        _k("input_tokens", "bigint", "tokens of the request"),
        _k("output_tokens", "bigint", "tokens of the answer, thinking included"),
        _c("cost", "double", "US dollars by the price table of the settings; null where the model has no price there"),
    ),
    key=("call_id",),
    partition_by=("cleaner_id",),
)

EMBEDDED_PRODUCTS = TableSpec(
    "embedded_products",
    "What was embedded for each product of a snapshot, by embedder: joins products to vectors by text_hash.",
    (
        _k("embedder_id", "string", "model, revision, prompt, template, dimension and dtype"),
        SNAPSHOT,
        _k("product_id", "string", "the product"),
        _k("text", "string", "the text as it was embedded, without the prompt; of a supplied vector, the title"),
        _k("text_hash", "string", "SHA-256 of the text, or of the supplied vector"),
    ),
    key=("product_id",),
    partition_by=("embedder_id", "snapshot"),
)

EMBEDDINGS = TableSpec(
    "embeddings",
    "Vectors by embedder and text; content-addressed and shared by snapshots, flavours and releases.",
    (
        _k("embedder_id", "string", "model, revision, prompt, template, dimension and dtype"),
        _k("text_hash", "string", "SHA-256 of the embedded text, or of the supplied vector"),
        _c(
            "vector",
            "binary",
            "little-endian float32, unit length; null when there is no usable vector (tried again every night)",
        ),
        _c("fault", "string", "why there is no vector"),
    ),
    key=("text_hash",),
    partition_by=("embedder_id",),
)

RELEASES = TableSpec(
    "releases",
    "The ledger of vocabulary releases: what each pins, who asked for it and why, and its state.",
    (
        _k("release", "string", "the release"),
        _k("state", "string", "trial (an analyst's, never live), served (refreshed nightly) or retired"),
        _k("taxonomy_source", "string", "where its taxonomy was read"),
        _k("taxonomy_revision", "string", "content hash of the taxonomy that the codebooks are trained on"),
        _k("training_snapshot", "string", "the snapshot that the codebooks are trained on"),
        _k("embedder_ids", "string", "JSON: embedder name to embedder id"),
        _c("cleaner_id", "string", "the cleaner whose attributes it stands on"),
        _c("asked_by", "string", "who asked for it"),
        _c("reason", "string", "why"),
        _k("created_at", "timestamp", "when it was pinned"),
        _c("predecessor", "string", "the release whose codes its codebooks keep as far as they can; null: none"),
        _c("acknowledged_by", "string", "retired: who said that no reader uses it any more"),
        _c("acknowledged_on", "string", "retired: the day (YYYY-MM-DD) they said it"),
    ),
    key=("release",),
    partition_by=("release",),
)

TAXONOMY_NODES = TableSpec(
    "taxonomy_nodes",
    "A release's category tree, one row a node, of the revision its codebooks are trained on and of the newest one.",
    (
        RELEASE,
        _k("revision", "string", "content hash of the tree"),
        _k("node_id", "string", "the source's id, else derived from the path and kept through renames"),
        _c("parent_id", "string", "null for a root"),
        _k("name", "string", "the node's name"),
        _k("path", "array<string>", "names from the root"),
        _k("depth", "int", "1 for a root"),
        _k("leaf", "boolean", "no children"),
        _k("products", "bigint", "products of the training snapshot placed at this very node"),
        _c(
            "former",
            "array<string>",
            "paths it had before and that the catalogue may still use, normalised, their steps joined by U+001F",
        ),
    ),
    key=("revision", "node_id"),
    partition_by=("release",),
)

TAXONOMY_CHANGES = TableSpec(
    "taxonomy_changes",
    "What changed in a release's tree, a row a change: against its predecessor's, and from revision to revision.",
    (
        RELEASE,
        _k("since", "string", "revision before"),
        _k("revision", "string", "revision after"),
        _k("class", "string", "minor or major: the whole change's"),
        _k("kind", "string", "added, removed, renamed, moved, split or merged"),
        _k("sentence", "string", "the change in words"),
        _c("products", "bigint", "products below the node; null when no product was known"),
        _k("details", "string", "JSON: node ids, names and paths"),
    ),
    key=("since", "revision", "kind", "details"),
    partition_by=("release",),
)

# What can happen to a product's row of SEMANTIC_IDS: `recleaned` is a new embedded text of an unchanged product,
# `recoded` a new codebook, `returned` a product that was withdrawn.
CHANGES = ("new", "text_changed", "recleaned", "recoded", "returned", "withdrawn")
ACTIVE = "withdrawn_on IS NULL"  # rows of SEMANTIC_IDS whose product is in the catalogue
# Rows with a SID for readers: a product that has no vector for a while may have kept one, see `collisions`.
ASSIGNED = "(base_sid IS NOT NULL AND published_sid IS NOT NULL)"

SEMANTIC_IDS = TableSpec(
    "semantic_ids",
    "The Semantic ID of every product, by flavour and release; a withdrawn product keeps its row as a tombstone.",
    (
        _k("flavour", "string", "the flavour"),
        RELEASE,
        _k("product_id", "string", "the product"),
        _c("base_sid", "string", "c1_c2_c3_c4 from the vector and the codebook alone; null when unassigned"),
        _c(
            "published_sid",
            "string",
            "base_sid after the collision policy: what readers get, if there is a base_sid",
        ),
        _c("codes", "array<int>", "the codewords of base_sid, coarse to fine, each in [0, codebook_size)"),
        _c("distance", "float", "squared distance between the latent vector and its quantisation"),
        _c("margin", "float", "smallest relative gap between the nearest and second nearest codeword"),
        _c("out_of_distribution", "boolean", "farther from its codewords than the training set ever was"),
        _c("reason", "string", "why there is no SID; null when there is one"),
        _c("change", "string", "what last touched the row: " + ", ".join(CHANGES)),
        _k("text_hash", "string", "hash of the embedded text (of several joined by '+')"),
        _c("source_hash", "string", "products.text_hash: tells a changed product from a changed cleaning"),
        _k("codebook_id", "string", "the codebook"),
        _c("collision_policy", "string", "how published_sid was made from base_sid: share, disambiguate, capacity=k"),
        _k(
            "as_of_snapshot",
            "string",
            "the snapshot that last touched the row; the whole slice's stands in its last commit's metadata",
        ),
        _c("withdrawn_on", "string", "the first snapshot that no longer had the product; null while it is active"),
    ),
    key=("product_id",),
    partition_by=("flavour", "release"),
    # A night touches one row in a hundred, all over the table: it marks them instead of writing every file anew.
    properties=(("delta.enableDeletionVectors", "true"),),
)

PREFIX_NAMES = TableSpec(
    "prefix_names",
    "A readable name for every SID prefix, with its distinguishing words, brands and some products.",
    (
        _k("flavour", "string", "the flavour"),
        RELEASE,
        _k("prefix", "string", "1 to 4 codewords"),
        _k("level", "int", "number of codewords"),
        _k("products", "bigint", "products under it"),
        _k("name", "string", "commonest category path and distinguishing words; stays while the content does"),
        _c("category", "string", "commonest category path"),
        _k("words", "array<string>", "distinguishing words by class-based TF-IDF"),
        _k("brands", "array<string>", "its commonest brands"),
        _k("sample", "array<string>", "some product ids"),
        _c("content", "string", "hash of the products' titles, categories and brands: what the name is made from"),
    ),
    key=("prefix",),
    partition_by=("flavour", "release"),
)

PROMOTIONS = TableSpec(
    "promotions",
    "The log of what was made live, taken back and held: when, by whom and why.",
    (
        _k("flavour", "string", "the flavour"),
        _k("release", "string", "the release made live; with a hold, the live one"),
        _k("publication", "string", "folder of the publication"),
        _k("kind", "string", "first, advance, switch, rollback (which holds, too), hold or release hold"),
        _k("previous", "string", "publication that was live before; empty when none"),
        _k("by", "string", "who: a person, or 'pipeline' for an advance"),
        _k("reason", "string", "why"),
        _k("at", "timestamp", "when"),
    ),
    key=("flavour", "at"),
)

NIGHTLY_FIGURES = TableSpec(
    "nightly_figures",
    "Figures of each night by flavour and release, for drift monitors and trends; the newest row of a figure counts.",
    (
        _k("flavour", "string", "the flavour"),
        RELEASE,
        SNAPSHOT,
        _k("figure", "string", "its name, see evaluation.drift"),
        _k("value", "double", "its value"),
        _k("at", "timestamp", "when it was recorded"),
    ),
    key=("flavour", "release", "snapshot", "figure", "at"),
)

ALL_TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        PRODUCTS,
        REJECTED_PRODUCTS,
        OFFERS,
        CLEANED_ATTRIBUTES,
        SNAPSHOT_CLEANINGS,
        CLEANING_CALLS,
        EMBEDDED_PRODUCTS,
        EMBEDDINGS,
        RELEASES,
        TAXONOMY_NODES,
        TAXONOMY_CHANGES,
        SEMANTIC_IDS,
        PREFIX_NAMES,
        PROMOTIONS,
        NIGHTLY_FIGURES,
    )
}
