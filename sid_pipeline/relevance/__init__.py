"""Does the embedding rank what people search for: labels, metrics, evaluation, fine-tuning and its gate.

Knows nothing of Dagster or Spark; torch and sentence-transformers are imported when a model is trained.
"""
