"""From a product to a vector: the text that is embedded, the model, and the incremental run over new texts.

Knows nothing of Dagster or Spark; torch and sentence-transformers are imported when a model is loaded.
"""
