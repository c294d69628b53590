"""From vectors to Semantic IDs in Spark: Arrow in, Arrow out, numpy in the workers.

Knows nothing of Dagster, and the workers need no torch.
"""
