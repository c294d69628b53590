"""What consumers load: immutable publication folders and the small file per flavour that names the live one.

Knows nothing of Dagster; only `stage` needs Spark.
"""
