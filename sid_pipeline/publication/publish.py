"""Writing a publication: an immutable folder of consumer files whose manifest is written last.

product_sids.parquet   product_id, sid: one row per product that has a SID, sorted by product_id
sid_products.parquet   retailer_id, sid, product_id, popularity: the inverted index over available offers,
                       sorted by retailer, SID and falling popularity
unassigned.parquet     product_id, reason: products without a SID
vocabulary.json        the tokens, level by level, and their offsets
codebook/              the codebook that the SIDs were made with
manifest.json          what it was made from, row counts and hashes of all files
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sid_pipeline.files import digest, file_sha256, sync_folder, to_json, write_atomically
from sid_pipeline.publication.tokens import tokens
from sid_pipeline.settings import check_key

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SCHEMA_VERSION = 1


class PublicationError(RuntimeError):
    """A publication that is missing, unfinished or damaged; the message names the file."""


def publication_folder(root: Path, flavour: str, release: str, snapshot: str, pins: dict[str, Any]) -> Path:
    """Where a publication lies: the same pins always give the same folder."""
    for kind, key in (("flavour", flavour), ("release", release), ("snapshot", snapshot)):
        check_key(kind, key)
    return root / flavour / release / f"{snapshot}-{digest(pins, 8)}"


def publish(
    folder: Path,
    semantic_ids: DataFrame,
    offers: DataFrame | None,
    codebook: Path,
    levels: int,
    codebook_size: int,
    pins: dict[str, Any],
) -> dict[str, Any]:
    """Write a publication and return its manifest; one that is already there is left untouched.

    Args:
        folder: from `publication_folder`.
        semantic_ids: product_id, published_sid, reason.
        offers: product_id, retailer_id, available, popularity; None leaves the inverted index out.
        codebook: folder of the codebook, copied whole.
        levels: codewords per SID.
        codebook_size: codewords per level.
        pins: what the publication stands on.
    """
    from pyspark.sql import functions as F

    if (folder / "manifest.json").is_file():
        return verify(folder)
    scratch = folder.with_name(f".{folder.name}.part")
    for leftover in (folder, scratch):  # of a run that did not come to its manifest
        shutil.rmtree(leftover, ignore_errors=True)
    scratch.mkdir(parents=True)

    assigned = semantic_ids.where(F.col("published_sid").isNotNull())
    sids = assigned.select("product_id", F.col("published_sid").alias("sid"))
    rows = {
        "product_sids.parquet": _write_sorted(sids, scratch / "product_sids.parquet", [F.col("product_id")]),
        "unassigned.parquet": _write_sorted(
            semantic_ids.where(F.col("published_sid").isNull()).select("product_id", "reason"),
            scratch / "unassigned.parquet",
            [F.col("product_id")],
        ),
    }
    if offers is not None:
        index = offers.where("available").join(sids, "product_id")
        rows["sid_products.parquet"] = _write_sorted(
            index.select("retailer_id", "sid", "product_id", "popularity"),
            scratch / "sid_products.parquet",
            [F.col("retailer_id"), F.col("sid"), F.col("popularity").desc(), F.col("product_id")],
        )
    vocabulary = {"levels": levels, "codebook_size": codebook_size, "tokens": tokens(levels, codebook_size)}
    (scratch / "vocabulary.json").write_text(to_json(vocabulary), encoding="utf-8")
    shutil.copytree(codebook, scratch / "codebook")

    files = sorted(path for path in scratch.rglob("*") if path.is_file())
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "pins": pins,
        "levels": levels,
        "codebook_size": codebook_size,
        "rows": rows,
        "files": {path.relative_to(scratch).as_posix(): file_sha256(path) for path in files},
    }
    write_atomically(scratch / "manifest.json", to_json(manifest))
    scratch.rename(folder)
    sync_folder(folder.parent)
    return manifest


def verify(folder: Path, *, hashes: bool = True) -> dict[str, Any]:
    """Read a publication's manifest and check that its files are there and unchanged.

    Raises:
        PublicationError: names the file that is missing or differs.
    """
    manifest_file = folder / "manifest.json"
    if not manifest_file.is_file():
        raise PublicationError(f"{folder} is no finished publication: it has no manifest.json")
    manifest = json.loads(manifest_file.read_text(encoding="utf-8"))
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise PublicationError(
            f"{manifest_file} has schema version {manifest.get('schema_version')}, this code reads {SCHEMA_VERSION}"
        )
    for name, sha in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise PublicationError(f"{path} is missing from its publication")
        if hashes and file_sha256(path) != sha:
            raise PublicationError(f"{path} does not match the hash in its manifest")
    return manifest


def _write_sorted(frame: DataFrame, path: Path, order: list) -> int:
    """Write a frame as one sorted Parquet file and return its number of rows."""
    import pyarrow.parquet as pq

    parts = path.with_name(f"{path.name}.parts")
    frame.coalesce(1).sortWithinPartitions(*order).write.mode("overwrite").parquet(str(parts))
    (part,) = parts.glob("part-*.parquet")
    part.rename(path)
    shutil.rmtree(parts)
    return pq.read_metadata(path).num_rows
