"""Looking at a vocabulary: report, prefix names, explorer, the diff to what is live, the comparison of flavours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from sid_pipeline.assets.assignment import STAGE as SEMANTIC_IDS_STAGE
from sid_pipeline.assets.drift import DESCRIPTION, DRIFT, judge_night
from sid_pipeline.assets.flavours import Flavour
from sid_pipeline.assets.recording import (
    Markdown,
    Outcome,
    markdown_table,
    materialise,
    stage_failures,
    table_metadata,
)
from sid_pipeline.assets.training import CODEBOOK, snapshot_vectors
from sid_pipeline.assignment.collisions import has_further_token
from sid_pipeline.files import digest, to_json, write_atomically
from sid_pipeline.partitions import releases
from sid_pipeline.publication.live import read_pointer
from sid_pipeline.receipts import MissingInput, Receipt
from sid_pipeline.releases import need_release
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.schemas import ACTIVE, EMBEDDED_PRODUCTS, PREFIX_NAMES, PRODUCTS, SEMANTIC_IDS
from sid_pipeline.settings import Settings
from sid_pipeline.taxonomy_source import TAXONOMY, release_tree
from sid_pipeline.trace import assigned_sids

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from sid_pipeline.reader import Publication

REPORT, NAMES, EXPLORER, DIFF, COMPARISON = (
    "report",
    "prefix_names",
    "explorer",
    "codebook_diff",
    "flavour_comparison",
)


def evaluation_assets(flavour: Flavour) -> list[dg.AssetsDefinition]:
    """The assets that look at one flavour's SIDs."""
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
                **_looked_at(warehouse, assigned),
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

    @flavour.asset(
        NAMES,
        [sids, TAXONOMY],
        PREFIX_NAMES.description,
        {"spark", "deltalake"},
        metadata=table_metadata(PREFIX_NAMES),
        code_version="2",
    )
    def prefix_names(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, flavour.key(NAMES)):
            assigned = warehouse.receipts.need(sids, release)
            inputs = {
                **_content(warehouse, assigned),
                "taxonomy": warehouse.receipts.need(TAXONOMY, release).data_version,
                **_polish_by(warehouse.settings),
            }
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(NAMES),
            inputs,
            lambda: _name_prefixes(warehouse, flavour, release, assigned.facts["as_of_snapshot"]),
            still_there=lambda receipt: not receipt.facts.get("unpolished"),
        )

    @flavour.asset(
        DIFF,
        [sids],
        "What would change for readers: this release's SIDs against the flavour's live publication. Against another "
        "release also why each product moved, by category, and where each token went (token_map.parquet).",
        {"numpy"},
        code_version="2",
    )
    def codebook_diff(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, flavour.key(DIFF)):
            assigned = warehouse.receipts.need(sids, release)
            live = read_pointer(warehouse.published, flavour.name)
        return materialise(
            context,
            warehouse.receipts,
            flavour.key(DIFF),
            {"semantic_ids": assigned.data_version, "live": live["publication"] if live else None},
            lambda: _diff(warehouse, flavour, release, assigned),
        )

    return [report, prefix_names, codebook_diff]


def comparison_assets(flavours: list[Flavour]) -> list[dg.AssetsDefinition]:
    """The assets that look at all flavours of a release together."""
    settings: Settings = flavours[0].settings
    sids = [flavour.key(SEMANTIC_IDS_STAGE) for flavour in flavours]
    owners = settings.orchestration.owners

    def compared(warehouse: Warehouse, release: str) -> dict[str, Receipt]:
        """Receipts of the flavours that have SIDs; the others are left out, not waited for."""
        receipts = {
            flavour.name: warehouse.receipts.get(flavour.key(SEMANTIC_IDS_STAGE), release) for flavour in flavours
        }
        return {name: receipt for name, receipt in receipts.items() if receipt is not None}

    @dg.asset(
        name=COMPARISON,
        code_version="2",
        deps=[dg.AssetKey(key.split("/")) for key in sids],
        description="Which products each flavour groups: agreement of the flavours, and examples where they differ.",
        group_name="comparison",
        owners=owners,
        kinds={"numpy"},
        partitions_def=releases,
    )
    def flavour_comparison(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, COMPARISON):
            receipts = compared(warehouse, release)
            inputs = {name: _content(warehouse, receipt) for name, receipt in receipts.items()}
        return materialise(
            context,
            warehouse.receipts,
            COMPARISON,
            inputs,
            lambda: _compare(warehouse, [f for f in flavours if f.name in receipts], release),
        )

    @dg.asset(
        name=EXPLORER,
        code_version="3",
        deps=[dg.AssetKey([flavour.name, stage]) for flavour in flavours for stage in (NAMES, REPORT)]
        + [dg.AssetKey(COMPARISON)],
        description="A static site to look at the vocabulary: the tree of prefixes with names and products, search, "
        "a product's page with its SIDs in every flavour, health charts, what is fragmented or suspicious, how the "
        "flavours differ and what changed. Opens from disk, with no network.",
        group_name="comparison",
        owners=owners,
        kinds={"html"},
        partitions_def=releases,
    )
    def explorer(context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        release = context.partition_key
        with stage_failures(context, warehouse, EXPLORER):
            receipts = compared(warehouse, release)
            shown = [flavour for flavour in flavours if flavour.name in receipts]
            before = {flavour.name: previous_publication(warehouse, flavour.name, release) for flavour in shown}
            made = {
                flavour.name: {
                    **_looked_at(warehouse, receipts[flavour.name]),
                    **{
                        stage: receipt.data_version
                        for stage in (NAMES, REPORT)
                        if (receipt := warehouse.receipts.get(flavour.key(stage), release)) is not None
                    },
                    "previous": before[flavour.name],
                }
                for flavour in shown
            }
        return materialise(
            context,
            warehouse.receipts,
            EXPLORER,
            made,
            lambda: _explore(warehouse, shown, release, made, before),
            still_there=lambda receipt: (warehouse.explorer(release) / "index.html").is_file(),
        )

    return [flavour_comparison, explorer]


def _other_live(warehouse: Warehouse, flavour: Flavour, assigned: Receipt) -> str | None:
    """The live publication where it is of another codebook than these SIDs."""
    pointer = read_pointer(warehouse.published, flavour.name)
    other = pointer is not None and pointer["codebook_id"] != assigned.facts["codebook_id"]
    return pointer["publication"] if pointer is not None and other else None


def _content(warehouse: Warehouse, assigned: Receipt) -> dict[str, str]:
    """What these assets look at: the SIDs, and the titles, categories and vectors that they stand on."""
    return {
        "semantic_ids": assigned.data_version,
        "products": warehouse.receipts.need(PRODUCTS.name, assigned.facts["as_of_snapshot"]).data_version,
    }


def _looked_at(warehouse: Warehouse, assigned: Receipt) -> dict[str, str]:
    """What is looked at by an asset that also tells the day, or judges it."""
    return {"as_of_snapshot": assigned.facts["as_of_snapshot"], **_content(warehouse, assigned)}


@dataclass(frozen=True)
class Assigned:
    """Products of a release with their SIDs, as arrays in one order."""

    table: "pa.Table"
    codes: "np.ndarray"  # int (N, levels)
    snapshot: str

    def column(self, name: str) -> list[Any]:
        """A column as a Python list."""
        return self.table[name].to_pylist()

    def categories(self) -> list[tuple[str, ...] | None]:
        """Category paths, None where a product has none."""
        return [tuple(path) if path else None for path in self.column("category")]


def _active(warehouse: Warehouse, flavour: Flavour, release: str) -> Any:
    """The rows of SEMANTIC_IDS of active products that have a SID, as a Spark DataFrame."""
    rows = warehouse.tables.read(SEMANTIC_IDS, flavour=flavour.name, release=release)
    return rows.where(ACTIVE).where("base_sid IS NOT NULL")


def _assigned(warehouse: Warehouse, flavour: Flavour, release: str, snapshot: str, columns: Sequence[str]) -> Assigned:
    """All assigned products of a release, sorted by product id, with columns of PRODUCTS."""
    import numpy as np

    sids = _active(warehouse, flavour, release)
    products = warehouse.tables.read(PRODUCTS, snapshot=snapshot)
    frame = sids.select("product_id", "codes").join(products.select("product_id", *columns), "product_id")
    table = frame.orderBy("product_id").toArrow()
    flat = table["codes"].combine_chunks().flatten().to_numpy()
    return Assigned(
        table.drop_columns(["codes"]),
        flat.reshape(len(table), -1) if len(table) else np.empty((0, 4), int),
        snapshot,
    )


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
    sids = _active(warehouse, flavour, release)
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
    write_atomically(folder / "report.html", render_html(result, _known_names(warehouse, flavour, release)))
    headline = result.headline()
    measured = result.to_dict()
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


def _known_names(warehouse: Warehouse, flavour: Flavour, release: str) -> dict[str, str]:
    """Names of the prefixes, where they were made."""
    table = warehouse.tables.arrow(PREFIX_NAMES, ["prefix", "name"], flavour=flavour.name, release=release)
    return dict(zip(table["prefix"].to_pylist(), table["name"].to_pylist(), strict=True))


def _live_codes(
    warehouse: Warehouse, flavour: Flavour, trained: Receipt, product_ids: list[str], levels: int
) -> "tuple[dict[str, np.ndarray], str]":
    """The live release's codes of the products, -1 where it has none, and why it cannot stand beside this one.

    Nothing where its codebook is this one; a sentence alone where its codes have another number of levels.
    """
    import numpy as np

    from sid_pipeline.reader import open_live

    pointer = read_pointer(warehouse.published, flavour.name)
    if pointer is None or pointer["codebook_id"] == trained.facts["codebook_id"]:
        return {}, ""
    live = open_live(flavour.name, warehouse.published, hashes=False)
    sids = live.lookup(product_ids)
    known = [_codes(sid) for sid in sids if sid]
    if not known:
        return {}, ""
    there = len(known[0]) - has_further_token(live.manifest["pins"].get("collision"))
    if there != levels:
        return {}, f"{pointer['release']} has codes of {there} levels, this release of {levels}: not comparable"
    codes = np.full((len(sids), levels), -1, np.int64)
    codes[[row for row, sid in enumerate(sids) if sid]] = [sid[:levels] for sid in known]
    return {f"live ({pointer['release']})": codes}, ""


def _polish_by(settings: Settings) -> dict[str, Any]:
    """What polishes prefix names, if anything does."""
    levels, cleaning = settings.report.polish_levels, settings.cleaning
    return {"polish": [levels, cleaning.provider, cleaning.model_name]} if levels else {}


def _name_prefixes(warehouse: Warehouse, flavour: Flavour, release: str, snapshot: str) -> Outcome:
    from sid_pipeline.evaluation.names import prefix_names
    from sid_pipeline.polishing import polished_names

    assigned = _assigned(warehouse, flavour, release, snapshot, ["title", "brand", "category"])
    kept = warehouse.tables.arrow(PREFIX_NAMES, flavour=flavour.name, release=release).to_pylist()
    names = prefix_names(
        assigned.codes,
        assigned.column("product_id"),
        assigned.column("title"),
        categories=_named_today(warehouse, release, assigned.categories()),
        brands=assigned.column("brand"),
        previous={row["prefix"]: row for row in kept if row.get("content")},
    )
    named = names.to_pylist()
    titles = dict(zip(assigned.column("product_id"), assigned.column("title"), strict=True))
    polished = polished_names(warehouse, flavour.name, release, named, titles)
    rows = [
        {
            "prefix": row["prefix"],
            "level": row["level"],
            "products": row["count"],
            "name": polished.names.get(row["prefix"], row["name"]),
            "category": row["category"],
            "words": row["words"],
            "brands": row["top_brands"],
            "sample": row["sample_product_ids"],
            "content": row["content"],
        }
        for row in named
    ]
    before = {row["prefix"]: row["name"] for row in kept}
    frame = warehouse.spark.createDataFrame(rows, PREFIX_NAMES.ddl(without=("flavour", "release")))
    written = warehouse.tables.replace(PREFIX_NAMES, frame, flavour=flavour.name, release=release)
    top = sorted((row for row in rows if row["level"] == 1), key=lambda row: (-row["products"], row["prefix"]))
    return Outcome(
        data_version=digest([(row["prefix"], row["name"]) for row in rows]),
        metadata={
            "dagster/row_count": written,
            "names kept from the night before": sum(
                row["prefix"] in before and before[row["prefix"]] == row["name"] for row in rows
            ),
            **polished.told,
            "largest": markdown_table(top[:25], ["prefix", "name", "products", "words"]),
        },
        facts={"unpolished": polished.missing},  # asked for again whenever the asset is
    )


def _named_today(
    warehouse: Warehouse, release: str, categories: list[tuple[str, ...] | None]
) -> list[tuple[str, ...] | None]:
    """Category paths under the names of the release's newest tree; what it does not know stays as it is."""
    tree = release_tree(warehouse, need_release(warehouse.tables, release))
    found = {path: tree.find(path) for path in set(categories) if path}
    return [node.path if path and (node := found[path]) else path for path in categories]


def _diff(warehouse: Warehouse, flavour: Flavour, release: str, assigned: Receipt) -> Outcome:
    from sid_pipeline.evaluation.codebook_diff import diff
    from sid_pipeline.reader import open_live

    if read_pointer(warehouse.published, flavour.name) is None:
        return Outcome("nothing live", metadata={"compared with": "nothing of this flavour is live yet"})
    live = open_live(flavour.name, warehouse.published, hashes=False)
    old = {product: _codes(sid) for product, sid in live.sids().items()}
    new = {product: _codes(sid) for product, sid in assigned_sids(warehouse, flavour.name, release).items()}
    result = diff(old, new, further=_further_tokens(live, assigned))
    text = result.pop("markdown")
    return Outcome(
        data_version=digest(result),
        metadata={
            "compared with": live.folder,
            "diff": Markdown(text),
            "figures": result,
            **_churn(warehouse, flavour, release),
        },
    )


def _further_tokens(old: "Publication", assigned: Receipt) -> tuple[bool, bool]:
    """Whether SIDs of a publication, and those that a release has now, end with a further token."""
    policies = old.manifest["pins"].get("collision"), assigned.inputs.get("collision_policy")
    return has_further_token(policies[0]), has_further_token(policies[1])


def _churn(warehouse: Warehouse, flavour: Flavour, release: str) -> dict[str, Any]:
    """What going over from the live release would cost its readers; nothing where this is the live one."""
    from sid_pipeline.churn import churn

    pointer = read_pointer(warehouse.published, flavour.name)
    if pointer is None or pointer["release"] == release:
        return {}
    snapshot = warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release).facts["as_of_snapshot"]
    found = churn(warehouse, flavour.name, pointer["release"], release, snapshot)
    if found is None:
        return {}
    trained = warehouse.receipts.need(flavour.key(CODEBOOK), release)
    aligned = (trained.metadata.get("manifest") or {}).get("json", {}).get("aligned", {})
    shares = {"kept as trained": aligned.get("kept_before"), "kept after alignment": aligned.get("kept")}
    return {
        **{f"kept L1..L{level}": share for level, share in enumerate(found.kept, 1)},
        **{f"moved: {reason}": count for reason, count in found.reasons.items()},
        "moved by category": Markdown(found.by_category),
        "alignment (training set)": {
            "to": aligned.get("to"),
            "warm start from": trained.inputs.get("start_from"),
            **shares,
        },
        "token map and moved products": found.save(warehouse, flavour.name, release),
    }


def _codes(sid: str) -> tuple[int, ...]:
    return tuple(int(code) for code in sid.split("_"))


def _compare(warehouse: Warehouse, flavours: list[Flavour], release: str) -> Outcome:
    from sid_pipeline.evaluation.comparison import CodeTable, compare_flavours

    if len(flavours) < 2:
        return Outcome("one flavour", metadata={"compared": "fewer than two flavours have SIDs in this release"})
    columns = ["title", "category"]
    loaded = [(f, _assigned(warehouse, f, release, _snapshot(warehouse, f, release), columns)) for f in flavours[:2]]
    first, second = (
        CodeTable(f.name, a.column("product_id"), a.codes, a.column("title"), categories=a.categories())
        for f, a in loaded
    )
    result = compare_flavours(first, second)
    text = result.pop("markdown")
    return Outcome(
        data_version=digest(result),
        metadata={"comparison": Markdown(text), "figures": {key: result[key] for key in ("items", "levels")}},
        facts={"comparison": result},
    )


def _explore(
    warehouse: Warehouse,
    flavours: list[Flavour],
    release: str,
    versions: dict[str, Any],
    before: dict[str, str | None],
) -> Outcome:
    from sid_pipeline.explorer.site import ExplorerInput, write_explorer

    if not flavours:
        raise MissingInput(f"no flavour has SIDs in release {release!r}: sid run --release {release}")
    columns = ["title", "brand", "category", "description"]
    loaded = {f.name: _assigned(warehouse, f, release, _snapshot(warehouse, f, release), columns) for f in flavours}
    rows: dict[str, dict[str, Any]] = {}
    for assigned in loaded.values():
        for row in assigned.table.to_pylist():
            rows.setdefault(row["product_id"], row)
    ids = sorted(rows)
    compared = warehouse.receipts.get(COMPARISON, release)
    index = write_explorer(
        warehouse.explorer(release),
        ExplorerInput(
            title="Semantic IDs",
            as_of_snapshot=max(assigned.snapshot for assigned in loaded.values()),
            product_ids=ids,
            titles=[rows[i]["title"] for i in ids],
            flavours=[_view(warehouse, f, release, loaded[f.name], ids, before[f.name]) for f in flavours],
            brands=[rows[i]["brand"] for i in ids],
            categories=[tuple(rows[i]["category"]) if rows[i]["category"] else None for i in ids],
            texts=[rows[i]["description"] or "" for i in ids],
            comparison=compared.facts.get("comparison") if compared else None,
        ),
    )
    size = sum(file.stat().st_size for file in index.parent.rglob("*") if file.is_file())
    return Outcome(
        data_version=digest([versions, ids]),
        metadata={
            "open": Markdown(f"`sid explorer` opens [{index}]({index.as_uri()}) in a browser."),
            "page": index.as_uri(),
            "products": len(ids),
            "megabytes": round(size / 1e6, 1),
        },
        facts={"page": index.relative_to(warehouse.state).as_posix()},
    )


def _view(
    warehouse: Warehouse, flavour: Flavour, release: str, assigned: Assigned, ids: list[str], before: str | None
) -> Any:
    """What the explorer shows of a flavour."""
    import json

    import numpy as np

    from sid_pipeline.explorer.site import ExplorerFlavour

    place = {product_id: row for row, product_id in enumerate(ids)}
    codes = np.full((len(ids), assigned.codes.shape[1]), -1, dtype=np.int64)
    codes[[place[product_id] for product_id in assigned.column("product_id")]] = assigned.codes
    names = warehouse.tables.arrow(PREFIX_NAMES, flavour=flavour.name, release=release)
    names = names.rename_columns({"products": "count", "brands": "top_brands", "sample": "sample_product_ids"})
    report = warehouse.reports(flavour.name, release) / "report.json"
    unusual = _active(warehouse, flavour, release).where("out_of_distribution").orderBy("distance", ascending=False)
    return ExplorerFlavour(
        flavour.name,
        release,
        codes,
        names=names if names.num_rows else None,
        report=json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None,
        unusual=[row.asDict() for row in unusual.select("product_id", "distance", "margin").limit(50).collect()],
        previous=None if before is None else _changes(warehouse, flavour, release, before, assigned),
    )


def _changes(warehouse: Warehouse, flavour: Flavour, release: str, before: str, assigned: Assigned) -> Any:
    """How the SIDs differ from a publication, and for each moved product what last touched its row."""
    from sid_pipeline.evaluation.codebook_diff import diff
    from sid_pipeline.reader import Publication

    old = Publication(warehouse.store, before, hashes=False)
    rows = warehouse.tables.arrow(SEMANTIC_IDS, columns=["product_id", "change"], flavour=flavour.name, release=release)
    now = assigned_sids(warehouse, flavour.name, release)
    sids = old.sids()
    titles = dict(zip(assigned.column("product_id"), assigned.column("title"), strict=True))
    found = diff(
        {product: _codes(sid) for product, sid in sids.items()},
        {product: _codes(sid) for product, sid in now.items()},
        titles,
        examples=50,
        further=_further_tokens(old, warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release)),
    )
    moved = {product for product, sid in now.items() if sids.get(product, sid) != sid}
    recoded = old.manifest["release"] != release
    why = {
        row["product_id"]: "recoded" if recoded else row["change"] or "unknown"
        for row in rows.to_pylist()
        if row["product_id"] in moved
    }
    return {**found, "why": why, "against": f"{old.manifest['release']} as of {old.manifest['as_of_snapshot']}"}


def previous_publication(warehouse: Warehouse, flavour: str, release: str) -> str | None:
    """What came before a release's SIDs: its newest publication of an earlier day, else the live one of another
    release, else None. A folder of the store."""
    from sid_pipeline.publication.folder import finished, read_manifest

    assigned = warehouse.receipts.get(f"{flavour}/{SEMANTIC_IDS_STAGE}", release)
    if assigned is None:
        return None
    store = warehouse.store
    for folder in reversed(finished(store, flavour, release)):
        if read_manifest(store, folder)["as_of_snapshot"] < assigned.facts["as_of_snapshot"]:
            return folder
    pointer = read_pointer(store, flavour)
    return None if pointer is None or pointer["release"] == release else str(pointer["publication"])


def _snapshot(warehouse: Warehouse, flavour: Flavour, release: str) -> str:
    return warehouse.receipts.need(flavour.key(SEMANTIC_IDS_STAGE), release).facts["as_of_snapshot"]
