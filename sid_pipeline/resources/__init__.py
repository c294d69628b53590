"""Thin adapters between assets and the outside: Spark, tables, files. They return plain objects."""
