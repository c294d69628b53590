"""The seeded generator of the sample data in ``data/``: ``generate(out_dir)`` or ``python -m sid_pipeline.sample``."""

from sid_pipeline.sample.build import generate

__all__ = ["generate"]
