"""Is it a good vocabulary? The report of a flavour's SIDs, and the night's check on drift."""

from typing import TYPE_CHECKING

import dagster as dg

from sid_pipeline.assets.assigned import looked_at
from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.drift import DESCRIPTION, DRIFT, judge_night
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.names import NAMES
from sid_pipeline.assets.recording import (
    Markdown,
    Outcome,
    markdown_table,
    materialise,
    stage_failures,
)
from sid_pipeline.assets.training import CODEBOOK, snapshot_vectors
from sid_pipeline.assignment.collisions import has_further_token
from sid_pipeline.files import digest, to_json, write_atomically
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.receipts import MissingInput, Receipt
from sid_pipeline.releases import need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import ACTIVE, EMBEDDED_PRODUCTS, SEMANTIC_IDS
from sid_pipeline.sids import codes_of, lengths
from sid_pipeline.trace import prefix_names, sid_prefixes

if TYPE_CHECKING:
    import numpy as np

REPORT = "report"


def report_assets(flavour: Flavour) -> list[dg.AssetsDefinition]:
    """`report` of a flavour."""
    sids = flavour.key(SEMANTIC_IDS_STAGE)

    @flavour.asset(
        REPORT,
        [sids, flavour.key(NAMES)],
        "Is it a good vocabulary? Health, faithfulness to the embeddings, agreement with the taxonomy, beside "
        "residual k-means, the category-prefix id and random codes. A self-contained HTML page, and headline "
        "figures that Dagster plots release by release.",
        {"numpy", "html"},
        code_version="4",
        check_specs=[
            dg.AssetCheckSpec(DRIFT, asset=dg.AssetKey([flavour.name, REPORT]), description=DESCRIPTION, blocking=False)
        ],
    )
    def report(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, flavour.key(REPORT)):
            assigned = warehouse.receipts.need(sids, release)
            inputs = {
                **looked_at(warehouse, assigned),
                "settings": warehouse.settings.report.model_dump(),
                "live": _other_live(warehouse, flavour, assigned),
            }
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(REPORT),
            inputs,
            lambda: _report(context, warehouse, flavour, release, assigned.facts["as_of_snapshot"]),
            still_there=lambda receipt: (warehouse.state / receipt.facts["page"]).is_file(),
        )

    return [report]


def _other_live(warehouse: Warehouse, flavour: Flavour, assigned: Receipt) -> str | None:
    """The live publication where it is of another codebook than these SIDs."""
    pointer = read_pointer(warehouse.published, flavour.name)
    other = pointer is not None and pointer["codebook_id"] != assigned.facts["codebook_id"]
    return pointer["publication"] if pointer is not None and other else None


def _report(
    context: dg.AssetExecutionContext, warehouse: Warehouse, flavour: Flavour, release: str, snapshot: str
) -> Outcome:
    import numpy as np
    from pyspark.sql import functions as F

    from sid_pipeline.assets.plots import code_usage, share_by_level
    from sid_pipeline.embedding.vectors import join, matrix
    from sid_pipeline.evaluation.page import render_html
    from sid_pipeline.evaluation.report import TABLE_LABELS, EvaluationInput, evaluate, value_of
    from sid_pipeline.rqvae import Codebook

    tables, settings = warehouse.tables, warehouse.settings.report
    pinned = need_release(tables, release)
    trained = warehouse.receipts.need(flavour.key(CODEBOOK), release)
    codebook = Codebook.load(warehouse.state / trained.facts["folder"])
    sids = tables.read(SEMANTIC_IDS, flavour=flavour.name, release=release)
    sids = sids.where(ACTIVE).where("base_sid IS NOT NULL")
    first = pinned.embedder_ids[flavour.embedders[0]]
    texts = tables.read(EMBEDDED_PRODUCTS, embedder_id=first, snapshot=snapshot)
    vectors = snapshot_vectors(warehouse, flavour, pinned, snapshot, ["product_id", "category"])
    total = sids.count()
    if total == 0:
        raise MissingInput(f"{flavour.key(SEMANTIC_IDS_STAGE)} of {release!r} holds no SID to report on")
    frame = (
        vectors.drop("reason", "text_hash")
        .join(sids.select("product_id", "codes"), "product_id")
        .join(texts.select("product_id", "text"), "product_id")
    )
    if total > settings.sample:
        # By hash of the id: a seeded sample that does not move from night to night.
        bucket = F.pmod(F.xxhash64(F.lit(settings.seed), "product_id"), F.lit(1_000_000))
        frame = frame.where(bucket < int(1_000_000 * settings.sample / total))
    sample = frame.orderBy("product_id").toArrow()
    codes = sample["codes"].combine_chunks().flatten().to_numpy().reshape(len(sample), -1)
    all_codes = all_texts = None
    if total > settings.sample:
        whole = sids.join(texts, "product_id").select("codes", F.xxhash64(F.lower("text")).alias("text")).toArrow()
        all_codes = whole["codes"].combine_chunks().flatten().to_numpy().reshape(-1, codebook.levels)
        all_texts = whole["text"].to_numpy()
    x = join([matrix(sample[f"vector_{i}"]) for i in range(len(flavour.weights))], flavour.weights)
    others, told = _live_codes(warehouse, flavour, trained, sample["product_id"].to_pylist(), codebook.levels)
    result = evaluate(
        EvaluationInput(
            flavour=flavour.name,
            release=release,
            as_of_snapshot=snapshot,
            product_ids=sample["product_id"].to_pylist(),
            texts=sample["text"].to_pylist(),
            categories=[tuple(path) if path else None for path in sample["category"].to_pylist()],
            vectors=np.asarray(x),
            codes=codes,
            reconstruct=lambda rows: codebook.decode(codes[rows]),
            codebook_size=codebook.codebook_size,
            seed=settings.seed,
            others=others,
            all_codes=all_codes,
            all_texts=all_texts,
        )
    )
    folder = warehouse.reports(flavour.name, release)
    write_atomically(folder / "report.json", to_json(result.to_dict()))
    headline = result.headline()
    measured = result.to_dict()
    listed = [*measured["different_texts"]["worst"], *measured["error_propagation_examples"]]
    prefixes = {prefix for row in listed for prefix in sid_prefixes(row["sid"])}
    names = prefix_names(warehouse, flavour.name, release, sorted(prefixes))
    write_atomically(folder / "report.html", render_html(result, names))
    kept = {
        TABLE_LABELS.get(name, name): [value_of(share) for share in table["share90"]]
        for name, table in measured["tables"].items()
    }
    return Outcome(
        data_version=digest(measured),
        metadata={
            "at a glance": markdown_table(result.glance()),
            "page": (folder / "report.html").as_uri(),
            **({"live release": told} if told else {}),
            "near-duplicates by level": share_by_level(kept),
            "use of the codes": code_usage(measured["code_counts"]),
            "report": Markdown(result.to_markdown()),
            **headline,
        },
        facts={
            "headline": headline,
            "page": (folder / "report.html").relative_to(warehouse.state).as_posix(),
        },
        checks=(judge_night(warehouse, flavour.name, release, headline, context.log.warning),),
    )


def _live_codes(
    warehouse: Warehouse, flavour: Flavour, trained: Receipt, product_ids: list[str], levels: int
) -> "tuple[dict[str, np.ndarray], str]":
    """The live release's codes of the products, -1 where it has none, and why it cannot stand beside this one.

    Nothing where its codebook is this one; a sentence alone where its codes have another number of levels.
    """
    import numpy as np
    import pyarrow as pa

    from sid_pipeline.reader import open_live

    pointer = read_pointer(warehouse.published, flavour.name)
    if pointer is None or pointer["codebook_id"] == trained.facts["codebook_id"]:
        return {}, ""
    live = open_live(flavour.name, warehouse.published, hashes=False)
    sids = pa.array(live.lookup(product_ids), pa.string())
    known = sids.drop_null()
    if not len(known):
        return {}, ""
    tokens = lengths(known)[0]
    there = tokens - has_further_token(live.manifest["pins"].get("collision"))
    if there != levels:
        return {}, f"{pointer['release']} has codes of {there} levels, this release of {levels}: not comparable"
    codes = np.full((len(sids), levels), -1, np.int64)
    codes[np.flatnonzero(sids.is_valid())] = codes_of(known, tokens)[:, :levels]
    return {f"live ({pointer['release']})": codes}, ""
