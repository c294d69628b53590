"""Faults of training that a person can mend, beside those of a codebook and of the gates; light to import."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message names the row, step or setting and the mend."""


class CheckpointError(RuntimeError):
    """A checkpoint folder cannot be used for this run; the message says why and what to do."""
