"""Attribute cleaning: a noisy listing becomes the typed facts that matter.

The schema and the result live in `model`, the interface of every cleaner in `cleaner`, the offline cleaner in
`rules`. Nothing here knows of Dagster or Spark.
"""
