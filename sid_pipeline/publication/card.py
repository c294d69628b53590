"""The data card of a publication: what it is, what it stands on and how good it is, for programs and for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from sid_pipeline.publication.vocabulary import Vocabulary

PACKAGES = ("sid-pipeline", "pyarrow", "numpy", "pyspark", "torch", "sentence-transformers")


@dataclass(frozen=True)
class Facts:
    """What the pipeline knows of the SIDs that are published.

    Attributes:
        lineage: codebook, taxonomy, embedders, snapshots: names to ids.
        quality: the report's headline figures.
        checks: outcomes of the blocking checks: name, passed, sentence.
    """

    lineage: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, float] = field(default_factory=dict)
    checks: Sequence[Mapping[str, Any]] = ()


def data_card(
    manifest: Mapping[str, Any], facts: Facts, vocabulary: Vocabulary, counts: Mapping[str, int]
) -> dict[str, Any]:
    """The card as data_card.json holds it."""
    products, tokens = counts["products"], len(vocabulary.tokens)
    return {
        "schema_version": manifest["schema_version"],
        "flavour": manifest["flavour"],
        "release": manifest["release"],
        "as_of_snapshot": manifest["as_of_snapshot"],
        "number": manifest["number"],
        "parent": manifest["parent"],
        "counts": dict(counts),
        "embedding_rows": {
            "atomic_ids": products,
            "tokens": tokens,
            "atomic_ids_per_token": round(products / tokens, 2),
        },
        "checks": [{name: check[name] for name in ("name", "passed", "sentence")} for check in facts.checks],
        "quality": dict(facts.quality),
        "lineage": dict(facts.lineage),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    counts, rows = card["counts"], card["embedding_rows"]
    parent = card["parent"]["folder"] if card["parent"] else "none: the first of its release"
    parts = [
        f"# Semantic IDs: {card['flavour']}, release {card['release']}, as of {card['as_of_snapshot']}",
        f"Publication {card['number']} of the release; parent: {parent}. Schema version {card['schema_version']}.",
        "## Counts",
        _table(["what", "rows"], [[name.replace("_", " "), f"{value:,}"] for name, value in counts.items()]),
        f"Token embeddings need {rows['tokens']:,} rows; atomic product ids would need {rows['atomic_ids']:,} "
        f"({rows['atomic_ids_per_token']:,} times as many), whatever the width.",
        "## Checks",
        _table(
            ["check", "passed", "seen"],
            [[check["name"], "yes" if check["passed"] else "NO", check["sentence"]] for check in card["checks"]],
        ),
        "## Quality",
        _table(["figure", "value"], [[name, f"{value:,.4g}"] for name, value in sorted(card["quality"].items())]),
        "## Lineage",
        _table(["what", "id"], [[name, str(value)] for name, value in sorted(card["lineage"].items())]),
        "## Made with",
        ", ".join(f"{name} {number}" for name, number in card["versions"].items()) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "None."
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows])
