"""The one interface behind which every cleaner stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sid_pipeline.cleaning.model import Cleaning, NotCleaned, ProductText


class Cleaner(Protocol):
    """Turns product texts into typed attributes, one result per text and in the same order.

    `id` names everything that can change a result (cleaner, model, and the versions of schema, prompt or lexicon). It
    is part of the content-addressed key, so two cleaners with one id must give equal results.
    """

    @property
    def id(self) -> str: ...

    def clean(self, texts: Sequence[ProductText]) -> Sequence[Cleaning | NotCleaned]:
        """A cleaning per text, or why there is none. The rules clean every text."""
        ...
