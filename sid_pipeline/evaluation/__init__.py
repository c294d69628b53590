"""Is it a good vocabulary? Quality figures, baselines, names and comparisons, as pure functions over arrays.

`report.evaluate` is the way in. Nothing here knows of Spark, Dagster or torch.
"""
