"""Fixtures shared by all tests: one Spark session for the whole run, and tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sid_pipeline.resources.spark import spark_session
from sid_pipeline.settings import SparkSettings
from sid_pipeline_tests import tiny_models

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session with Delta, as the embedded default starts it."""
    session = spark_session(SparkSettings(master="local[2]", driver_memory="1g"))
    yield session
    session.stop()


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny BERT, see `tiny_models`."""
    return tiny_models.tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Gemma 3 embedding model, see `tiny_models`."""
    return tiny_models.tiny_gemma(tmp_path_factory.mktemp("gemma"))
