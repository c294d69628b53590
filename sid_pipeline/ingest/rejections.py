"""The verdict on a source: how many rejected rows are too many. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping

from sid_pipeline.ingest.errors import InputError


def check_rejections(location: str, rows: int, rejected: Mapping[str, int], limit: float) -> float:
    """Return the rejected share, 0 to 1.

    Args:
        location: the source, for the message.
        rows: its data rows.
        rejected: rejected rows by rule.
        limit: the largest share that is let through (`source.max_rejected_share`).

    Raises:
        InputError: no row was accepted, or the share is above the limit; the message counts the rules broken.
    """
    bad = sum(rejected.values())
    commonest = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    rules = ", ".join(f"{rule} {count:,}" for rule, count in commonest)
    if bad >= rows:
        raise InputError(f"No rows left: all {rows:,} rows of {location} were rejected ({rules}). Mend the source.")
    if bad > limit * rows:
        raise InputError(
            f"{bad:,} of {rows:,} rows of {location} were rejected ({bad / rows:.1%}, allowed {limit:.1%}): "
            f"{rules}. Mend the rows listed in rejected_products, or raise [source] max_rejected_share."
        )
    return bad / rows
