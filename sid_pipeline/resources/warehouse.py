"""The one resource of the assets: settings, tables, receipts and the folders of artefacts.

Thin on purpose: it hands out plain objects and starts Spark only when asked for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sid_pipeline.receipts import Receipts
from sid_pipeline.resources.tables import Tables, spool_dir
from sid_pipeline.settings import Settings, check_key

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
        self.tables = Tables(self.state / "tables", self._spark)
        self.receipts = Receipts(self.state / "receipts")

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

    def explorer(self, release: str) -> Path:
        """Folder of the explorer site of a release."""
        return self.state / "artefacts" / "explorers" / check_key("release", release)

    @property
    def publications(self) -> Path:
        """Root of the publications."""
        return self.state / "publications"

    @property
    def lexicon(self) -> Path:
        """The frozen lexicon of the rules cleaner."""
        if self.settings.cleaning.lexicon:
            return self.settings.path(self.settings.cleaning.lexicon)
        return self.state / "artefacts" / "lexicon.json"

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
