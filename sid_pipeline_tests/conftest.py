"""Fixtures shared by all tests: one Spark session for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from sid_pipeline.resources.spark import spark_session
from sid_pipeline.settings import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session with Delta, as the embedded default starts it."""
    session = spark_session(SparkSettings(master="local[2]", driver_memory="1g"))
    yield session
    session.stop()
