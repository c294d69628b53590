"""The explorer: a static site to look at a vocabulary, opened from disk with no network."""
