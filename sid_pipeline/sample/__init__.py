"""The seeded generator of the sample data: ``generate(out_dir)`` or ``python -m sid_pipeline.sample``.

Only data for trying things out is made here; nothing of the pipeline itself belongs in this package.
"""

from sid_pipeline.sample.build import generate

__all__ = ["generate"]
