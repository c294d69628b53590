"""The one resource of the assets: settings, tables, receipts and the folders of artefacts.

Thin on purpose: it hands out plain objects and starts Spark only when asked for it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sid_pipeline import migrations
from sid_pipeline.cleaning.schema import Schema
from sid_pipeline.files import to_json, write_atomically
from sid_pipeline.ingest.errors import InputError
from sid_pipeline.keys import check_key
from sid_pipeline.publication.store import Store, open_store
from sid_pipeline.receipts import Receipts
from sid_pipeline.resources.tables import Tables, spool_dir
from sid_pipeline.schemas import TableSpec, cleaned_table
from sid_pipeline.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Warehouse:
    """Everything under the state folder, by name.

    Args:
        settings: the validated settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = settings.state
        self.unchecked_tables = Tables(self.state / "tables", self._spark)

    @cached_property
    def tables(self) -> Tables:
        """The Delta tables.

        Raises:
            StateError: another version of the project wrote them.
        """
        migrations.check(self.state)
        return self.unchecked_tables

    @cached_property
    def receipts(self) -> Receipts:
        """The receipts.

        Raises:
            StateError: as `tables`.
        """
        migrations.check(self.state)
        return Receipts(self.state / "receipts")

    @property
    def spark(self) -> SparkSession:
        """The process's Spark session, started on first use."""
        return self._spark()

    def training_set(self, flavour: str, release: str) -> Path:
        """Folder of a training set."""
        return self._artefact("training_sets", flavour, release)

    def codebooks(self, flavour: str, release: str) -> Path:
        """Folder that holds the codebooks of a release, one folder each, named by its id."""
        return self._artefact("codebooks", flavour, release)

    def reports(self, flavour: str, release: str) -> Path:
        """Folder of the quality report."""
        return self._artefact("reports", flavour, release)

    def codebook_diff(self, flavour: str, release: str) -> Path:
        """Folder of what a release would change for the readers of the live one."""
        return self._artefact("codebook_diffs", flavour, release)

    def polished_names(self, flavour: str, release: str) -> Path:
        """Folder of the answers of a language model that was asked for plainer prefix names."""
        return self._artefact("polished_names", flavour, release)

    def explorer(self, release: str) -> Path:
        """Folder of the explorer site of a release."""
        return self.state / "artefacts" / "explorers" / check_key("release", release)

    @property
    def published(self) -> str:
        """Root of publications and live pointers: a folder, or an address that fsspec understands."""
        root = self.settings.publication.root
        return str(self.state) if root is None else self.settings.location(root)

    @property
    def store(self) -> Store:
        """The publications and live pointers."""
        return open_store(self.published)

    @property
    def schema(self) -> Schema:
        """The schema of the cleaned attributes.

        Raises:
            SchemaError: the settings name one that cannot be used.
        """
        return Schema.load(self.settings.cleaning.attributes, self.settings.root)

    @property
    def cleaned(self) -> TableSpec:
        """The table of the cleaned attributes, by the settings' schema."""
        return cleaned_table(self.schema)

    @property
    def lexicon(self) -> Path:
        """The frozen lexicon of the rules cleaner."""
        if self.settings.cleaning.lexicon:
            return self.settings.path(self.settings.cleaning.lexicon)
        return self.state / "artefacts" / "lexicon.json"

    def claim(self) -> None:
        """Say whose state this is, at the first use, and refuse another catalogue's settings from then on.

        The state may move, and so may the project as a whole: where the catalogue lies is kept as it is seen from the
        state and as an address of its own, and one of the two has to be what it was.

        Raises:
            InputError: the state folder holds another catalogue; its releases and SIDs are not to be mixed with it.
            StateError: another version of the project wrote it.
        """
        migrations.check(self.state)
        location = self.settings.location(self.settings.source.products)
        own = {"products": location if "://" in location else os.path.relpath(location, self.state), "at": location}
        mark = self.state / "catalogue.json"
        owner = json.loads(mark.read_text(encoding="utf-8")) if mark.is_file() else own
        # Until state version 2 knew `at`, only the first of the two was kept.
        if owner["products"] != own["products"] and owner.get("at") != own["at"]:
            raise InputError(
                f"{self.state} holds another catalogue ({owner.get('at', owner['products'])}, not {location}), and "
                "SIDs of two catalogues must not mix: set state_dir to a folder of this catalogue's own. If it is the "
                f"same catalogue at another place, remove {mark} and run again"
            )
        if owner != own or not mark.is_file():
            write_atomically(mark, to_json(own))

    @contextmanager
    def spool(self, name: str) -> Iterator[Path]:
        """A scratch folder that is removed afterwards."""
        folder = spool_dir(self.state, name)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _artefact(self, kind: str, flavour: str, release: str) -> Path:
        return self.state / "artefacts" / kind / check_key("flavour", flavour) / check_key("release", release)

    def _spark(self) -> SparkSession:
        from sid_pipeline.resources.spark import spark_session

        return spark_session(self.settings.spark)
