"""Semantic IDs for a retail catalogue: made, checked, published and refreshed every night."""
