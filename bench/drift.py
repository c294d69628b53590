"""False alarms of the drift monitors on simulated quiet years (the model is that of the unit test).

python bench/drift.py --years 500
"""

from __future__ import annotations

import argparse
from collections import Counter

from sid_pipeline_tests.unit.evaluation.test_drift import alarms, quiet_year


def main() -> None:
    """Count the nights with a finding, and the findings by figure and kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=500)
    parser.add_argument("--first-seed", type=int, default=1000)
    asked = parser.parse_args()
    found: Counter[tuple[str, str]] = Counter()
    nights = noisy = 0
    for seed in range(asked.first_seed, asked.first_seed + asked.years):
        told = alarms(quiet_year(seed))
        found.update((figure, kind) for _, figure, kind in told)
        nights += len({night for night, _, _ in told})
        noisy += bool(told)
    print(f"{asked.years} quiet years, {365 * asked.years:,} nights: {nights} nights with a finding, in {noisy} years")
    for (figure, kind), count in found.most_common():
        print(f"  {figure} {kind}: {count}")


if __name__ == "__main__":
    main()
