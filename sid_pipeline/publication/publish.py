"""Writing a publication: an immutable folder of consumer files (see `folder`) whose manifest is written last.

The folder is made beside the others, hidden, and installed whole. The same pins on the same parent give the same
folder, and the same rows give the same bytes in every consumer file. A crash at any point leaves what was published
as it was, and a rerun completes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from sid_pipeline.files import file_sha256, to_json
from sid_pipeline.publication import delta, rows, stage
from sid_pipeline.publication import folder as layout
from sid_pipeline.publication.card import Facts, data_card, markdown
from sid_pipeline.publication.constraints import Constraints
from sid_pipeline.publication.folder import SCHEMA_VERSION, PublicationError, newest, read_manifest, verify, verify_file
from sid_pipeline.publication.store import MANIFEST, LocalStore, Store
from sid_pipeline.publication.vocabulary import Vocabulary, further_tokens

INDEX_SCHEMA = pa.schema(
    [("retailer_id", pa.string()), ("sid", pa.string()), ("product_id", pa.string()), ("popularity", pa.float64())]
)
UNASSIGNED_SCHEMA = pa.schema([("product_id", pa.string()), ("reason", pa.string())])
WITHDRAWN_SCHEMA = pa.schema([("product_id", pa.string()), ("sid", pa.string()), ("withdrawn_on", pa.string())])


@dataclass(frozen=True)
class Source:
    """What a publication is made of.

    Attributes:
        flavour, release, snapshot: what it is a publication of.
        pins: data versions of all that decides its rows, JSON-able.
        stage: writes the sorted rows into a folder, as `stage.stage` does; called only when there is work.
        expected: rows that PRODUCT_SIDS, UNASSIGNED and WITHDRAWN of `folder` must have.
        codebook: folder of the codebook, copied whole.
        codewords: (levels, codebook_size, D) float32, the vectors of the tokens.
        further: whether SIDs carry a further token after the codewords.
        facts: for the data card.
    """

    flavour: str
    release: str
    snapshot: str
    pins: dict[str, Any]
    stage: Callable[[Path], None]
    expected: Mapping[str, int]
    codebook: Path
    codewords: NDArray[np.float32]
    further: bool
    facts: Facts


@dataclass(frozen=True)
class Published:
    """A publication: its folder in the store, and its manifest."""

    folder: str
    manifest: dict[str, Any]


def publish(store: Store, source: Source, spool: Path) -> Published:
    """Publish, unless the newest publication of the release was made from the same pins already.

    Args:
        store: where publications lie.
        source: what is published.
        spool: a local scratch folder for stores that are not local.

    Raises:
        PublicationError: the rows cannot be published, or the previous publication is damaged.
    """
    root = layout.release_folder(source.flavour, source.release)
    scratch = store.scratch(spool)
    scratch.mkdir(parents=True, exist_ok=True)
    name = f"{source.flavour}.{source.release}"
    with FileLock(scratch / f"{name}.lock"):
        work = scratch / name
        shutil.rmtree(work, ignore_errors=True)  # of a run that did not come to its end
        last = newest(store, source.flavour, source.release)
        before = read_manifest(store, last) if last else None
        if last and before and before["pins"] == source.pins:
            return Published(last, verify(store, last))
        parent = {"folder": last, "manifest_sha256": store.sha256(f"{last}/{MANIFEST}")} if last else None
        number = layout.number_of(last) + 1 if last else 1
        folder = f"{root}/{layout.folder_name(number, source.snapshot, {'pins': source.pins, 'parent': parent})}"
        try:
            source.stage(work / "staged")
            manifest = {
                "schema_version": SCHEMA_VERSION,
                "flavour": source.flavour,
                "release": source.release,
                "as_of_snapshot": source.snapshot,
                "number": number,
                "parent": parent,
                "pins": source.pins,
            }
            made = _make(store, source, work / "staged", work / "made", manifest, before)
            store.install(work / "made", folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return Published(folder, made)


def drop_scratch(store: Store, flavour: str, release: str) -> None:
    """Take away what a run that was killed left of a publication on a local disk, unless one is being made."""
    if not isinstance(store, LocalStore):
        return  # it lay in the run's own scratch folder
    work = store.scratch(store.folder) / f"{flavour}.{release}"
    if work.is_dir():
        with suppress(Timeout), FileLock(f"{work}.lock", timeout=0):
            shutil.rmtree(work, ignore_errors=True)


def _make(
    store: Store, source: Source, staged: Path, made: Path, manifest: dict[str, Any], before: dict[str, Any] | None
) -> dict[str, Any]:
    """Write all files of a publication into `made`, the manifest last, and return the manifest."""
    made.mkdir(parents=True)
    count, codes = _write_rows(source, staged, made)
    for name, wanted in source.expected.items():
        if count[name] != wanted:
            raise PublicationError(
                f"{count[name]:,} rows of {name} were staged in {staged}, not the {wanted:,} of the table: driver and "
                "executors have to share that disk (docs/spark.md). Nothing is published; what was published stays"
            )
    levels, codebook_size = source.codewords.shape[:2]
    further = 0
    if source.further:
        largest = int(codes[:, -1].max(initial=0))
        further = further_tokens(largest, before["further_tokens"] if before else 0)
    vocabulary = Vocabulary(levels, codebook_size, further)
    tree = Constraints.build(codes, vocabulary.sizes)
    del codes

    _write_delta(store, staged, made, manifest["parent"], before, count)
    _write_tensors(made / layout.CONSTRAINTS, tree.to_arrays())
    _write_tensors(made / layout.TOKEN_VECTORS, {"vectors": vocabulary.vectors(source.codewords)})
    _write_text(made / layout.VOCABULARY, to_json(vocabulary.to_dict()))
    _write_text(made / layout.ADDED_TOKENS, to_json(vocabulary.added_tokens()))
    shutil.copytree(source.codebook, made / layout.CODEBOOK)

    manifest |= {
        "levels": levels,
        "codebook_size": codebook_size,
        "further_tokens": further,
        "rows": {name: n for name, n in count.items() if name.endswith(".parquet")},
    }
    counts = {
        "products": count[layout.PRODUCT_SIDS],
        "distinct_sids": tree.sids,
        "without_a_sid": count[layout.UNASSIGNED],
        "withdrawn": count[layout.WITHDRAWN],
        "offers_indexed": count.get(layout.SID_PRODUCTS, 0),
        **{f"{change}_since_parent": count[change] for change in (delta.ADDED, delta.MOVED, delta.WITHDRAWN)},
    }
    card = data_card(manifest, source.facts, vocabulary, counts)
    _write_text(made / layout.DATA_CARD, to_json(card))
    _write_text(made / layout.README, markdown(card))
    files = sorted(path for path in made.rglob("*") if path.is_file())
    manifest["files"] = {path.relative_to(made).as_posix(): file_sha256(path) for path in files}
    _write_text(made / MANIFEST, to_json(manifest))
    return manifest


def _write_rows(source: Source, staged: Path, made: Path) -> tuple[dict[str, int], NDArray[np.int32]]:
    """The row files. Returns rows per file, and the codes of all SIDs: the one thing that is in memory as a whole,
    4 bytes per code."""
    levels, codebook_size = source.codewords.shape[:2]
    sizes = [codebook_size] * levels + ([0] if source.further else [])
    codes: list[NDArray[np.int32]] = []

    def active() -> Iterator[pa.Table]:
        every = rows.strictly_ascending(rows.staged(staged / stage.PRODUCTS), "product_id")
        for table in rows.select(every, delta.has_sid):
            codes.append(rows.sid_codes(table["sid"], sizes))
            yield table

    def without(table: pa.Table) -> pa.ChunkedArray:
        return pc.and_(pc.is_null(table["withdrawn_on"]), pc.is_null(table["sid"]))

    count = {layout.PRODUCT_SIDS: rows.write(made / layout.PRODUCT_SIDS, delta.SIDS, active())}
    for name, schema, wanted in (
        (layout.UNASSIGNED, UNASSIGNED_SCHEMA, without),
        (layout.WITHDRAWN, WITHDRAWN_SCHEMA, lambda table: pc.is_valid(table["withdrawn_on"])),
    ):
        tables = rows.select(rows.staged(staged / stage.PRODUCTS), wanted)
        count[name] = rows.write(made / name, schema, tables)
    if (staged / stage.OFFERS).is_dir():
        offers = rows.staged(staged / stage.OFFERS)
        count[layout.SID_PRODUCTS] = rows.write(made / layout.SID_PRODUCTS, INDEX_SCHEMA, offers)
    return count, np.concatenate(codes) if codes else np.empty((0, len(sizes)), np.int32)


def _write_delta(
    store: Store,
    staged: Path,
    made: Path,
    parent: dict[str, Any] | None,
    before: dict[str, Any] | None,
    count: dict[str, int],
) -> None:
    """The delta against the parent (without one, everything is added), and the proof that it is exact."""
    count.update({delta.ADDED: 0, delta.MOVED: 0, delta.WITHDRAWN: 0})

    def previous() -> Iterator[pa.Table]:
        if parent is not None:
            yield from rows.published(store, f"{parent['folder']}/{layout.PRODUCT_SIDS}")

    def counted(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            for change in (delta.ADDED, delta.MOVED, delta.WITHDRAWN):
                count[change] += pc.sum(pc.equal(table["change"], change)).as_py() or 0
            yield table

    if parent is not None and before is not None:
        verify_file(store, parent["folder"], before, layout.PRODUCT_SIDS)
    changes = delta.difference(previous(), rows.staged(staged / stage.PRODUCTS))
    count[layout.DELTA] = rows.write(made / layout.DELTA, delta.SCHEMA, counted(changes))
    delta.require_exact(previous(), rows.written(made / layout.DELTA), rows.written(made / layout.PRODUCT_SIDS))


def _write_tensors(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    from safetensors.numpy import save

    path.write_bytes(save(arrays))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


__all__ = ["Facts", "PublicationError", "Published", "Source", "publish"]
