"""The publication folder as readers see it: its name, its files, its manifest, and whether it is whole.

    publications/<flavour>/<release>/<number>-<day>-<id>/

    product_sids.parquet     product_id, sid: every product that has a SID, sorted by product_id
    sid_products.parquet     retailer_id, sid, product_id, popularity: the inverted index over available offers,
                             sorted by retailer, SID and falling popularity
    unassigned.parquet       product_id, reason: active products without a SID
    withdrawn.parquet        product_id, sid, withdrawn_on: products that left the catalogue, with their last SID
    delta.parquet            product_id, change, sid, previous_sid, reason: what turns the parent into this publication
    vocabulary.json          levels, sizes and tokens, each at its offset
    added_tokens.json        the same tokens as a Hugging Face tokenizer takes them
    token_vectors.safetensors   one vector per token, to warm-start token embeddings
    constraints.safetensors  the prefix tree of all SIDs in CSR form, for constrained decoding
    codebook/                the codebook that the SIDs were made with
    data_card.json, README.md   what it is, stands on and how good it is, for programs and for people
    manifest.json            written last: what it was made from, its parent, row counts, hash of every file

Numbers count the publications of a release, so the newest is the last by name, whatever clocks say. A folder never
changes. Light: the reader imports this.
"""

from __future__ import annotations

import re
from typing import Any

from sid_pipeline.files import digest
from sid_pipeline.keys import check_key
from sid_pipeline.publication.store import MANIFEST, PublicationError, Store, describe, read_json

SCHEMA_VERSION = 2

PRODUCT_SIDS = "product_sids.parquet"
SID_PRODUCTS = "sid_products.parquet"
UNASSIGNED = "unassigned.parquet"
WITHDRAWN = "withdrawn.parquet"
DELTA = "delta.parquet"
VOCABULARY = "vocabulary.json"
ADDED_TOKENS = "added_tokens.json"
TOKEN_VECTORS = "token_vectors.safetensors"
CONSTRAINTS = "constraints.safetensors"
CODEBOOK = "codebook"
DATA_CARD = "data_card.json"
README = "README.md"

# What every manifest names, and the files that every publication has.
_IN_MANIFEST = ("flavour", "release", "as_of_snapshot", "number", "parent", "pins", "rows", "files")
_ALWAYS_THERE = (
    PRODUCT_SIDS,
    UNASSIGNED,
    WITHDRAWN,
    DELTA,
    VOCABULARY,
    ADDED_TOKENS,
    TOKEN_VECTORS,
    CONSTRAINTS,
    DATA_CARD,
    README,
)

_NAME = re.compile(r"(\d{6})-\d{4}-\d{2}-\d{2}-[0-9a-f]+")


def release_folder(flavour: str, release: str) -> str:
    """Where the publications of a release lie, relative to the store's root."""
    return f"publications/{check_key('flavour', flavour)}/{check_key('release', release)}"


def folder_name(number: int, snapshot: str, pins: dict[str, Any]) -> str:
    """The name of the number-th publication of a release: the same pins always give the same name."""
    return f"{number:06d}-{check_key('snapshot', snapshot)}-{digest(pins, 8)}"


def number_of(folder: str) -> int:
    """The number in a publication's name."""
    found = _NAME.fullmatch(folder.rsplit("/", 1)[-1])
    if found is None:
        raise PublicationError(f"{folder!r} is no publication folder: its name is <number>-<day>-<id>")
    return int(found[1])


def folders(store: Store, flavour: str, release: str) -> list[str]:
    """Folders of a release that are named as publications, oldest first, finished or not; others are a person's."""
    root = release_folder(flavour, release)
    return [f"{root}/{name}" for name in store.names(root) if _NAME.fullmatch(name)]


def finished(store: Store, flavour: str, release: str) -> list[str]:
    """Folders of the finished publications of a release, oldest first."""
    return [folder for folder in folders(store, flavour, release) if store.exists(f"{folder}/{MANIFEST}")]


def newest(store: Store, flavour: str, release: str) -> str | None:
    """Folder of the newest finished publication of a release."""
    newest_first = reversed(folders(store, flavour, release))
    return next((folder for folder in newest_first if store.exists(f"{folder}/{MANIFEST}")), None)


def read_manifest(store: Store, folder: str) -> dict[str, Any]:
    """The manifest of a publication.

    Raises:
        PublicationError: there is none, or it cannot be read by this version.
    """
    path = f"{folder}/{MANIFEST}"
    try:
        manifest = read_json(store, path)
    except FileNotFoundError:
        raise PublicationError(f"{describe(store, folder)} is no finished publication: it has no {MANIFEST}") from None
    except ValueError as error:
        raise PublicationError(f"{error}: restore it, or remove the folder and publish again") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise PublicationError(
            f"{describe(store, path)} has schema version {version}, this code reads {SCHEMA_VERSION}"
        )
    lacking = [name for name in _IN_MANIFEST if name not in manifest]
    lacking = lacking or [name for name in _ALWAYS_THERE if name not in manifest["files"]]
    if lacking:
        raise PublicationError(f"{describe(store, path)} does not name {lacking[0]}, so it was altered: restore it")
    return manifest


def verify(store: Store, folder: str, *, hashes: bool = True, manifest_sha256: str | None = None) -> dict[str, Any]:
    """Read a publication's manifest and check that its files are there and unchanged.

    Args:
        hashes: read every file and compare its hash, not only look whether it is there.
        manifest_sha256: the hash that the live pointer names.

    Raises:
        PublicationError: names the file that is missing or differs.
    """
    manifest = read_manifest(store, folder)
    if manifest_sha256 is not None and store.sha256(f"{folder}/{MANIFEST}") != manifest_sha256:
        raise PublicationError(f"{describe(store, folder)}/{MANIFEST} is not the one that was made live")
    for name in manifest["files"]:
        verify_file(store, folder, manifest, name, hashes=hashes)
    return manifest


def look_over(store: Store, folder: str, *, manifest_sha256: str) -> None:
    """Check cheaply that a publication is whole: all files are there, the row files end as they were written, and the
    small files are unchanged. A byte that changed amid the rows is found by `verify` only.

    Raises:
        PublicationError: names the file that is missing or differs.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    manifest = verify(store, folder, hashes=False, manifest_sha256=manifest_sha256)
    for name in manifest["files"]:
        wanted = manifest["rows"].get(name)
        if wanted is None:
            verify_file(store, folder, manifest, name)
            continue
        path = f"{folder}/{name}"
        try:
            with store.open(path) as file:
                rows = pq.ParquetFile(file).metadata.num_rows
        except (OSError, pa.ArrowInvalid) as error:
            raise PublicationError(f"{describe(store, path)} is cut off or damaged: copy it there again") from error
        if rows != wanted:
            raise PublicationError(f"{describe(store, path)} holds {rows} rows, not {wanted}: copy it there again")


def verify_file(store: Store, folder: str, manifest: dict[str, Any], name: str, *, hashes: bool = True) -> None:
    """Check one file of a publication. Raises PublicationError that names it."""
    path = f"{folder}/{name}"
    if not store.exists(path):
        raise PublicationError(f"{describe(store, path)} is missing from its publication: copy it there again")
    if hashes and store.sha256(path) != manifest["files"][name]:
        raise PublicationError(f"{describe(store, path)} does not match the hash in its manifest: copy it there again")
