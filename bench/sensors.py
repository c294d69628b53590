"""Do the sensors leak? They live in the code server for years; here each is asked many times in one process.

    python bench/sensors.py SETTINGS [--times 200]

Prints, for each plain sensor (conditions and run-status sensors are Dagster's to drive), milliseconds an evaluation,
resident memory in MiB before and after each quarter of them, and at the end the open files.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ASKED = ("late_nights", "tell_of_age", "taxonomy_watch")


def resident_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", help="of a project with some nights in its state")
    parser.add_argument("--times", type=int, default=200)
    arguments = parser.parse_args()
    os.environ["SID_SETTINGS"] = str(Path(arguments.settings).resolve())

    from bench.year_runs import Operator

    operator = Operator()
    quarter = max(1, arguments.times // 4)
    for name in ASKED:
        sensor = operator.repository.get_sensor_def(name)
        resident, began = [resident_mib()], time.monotonic()
        for number in range(4 * quarter):
            context = operator.dg.build_sensor_context(
                instance=operator.instance,
                resources={"warehouse": operator.warehouse},
                repository_def=operator.repository,
            )
            sensor(context)
            if number % quarter == quarter - 1:
                resident.append(resident_mib())
        took = 1000 * (time.monotonic() - began) / (4 * quarter)
        print(f"{name}: {took:.1f} ms, resident {' '.join(map(str, resident))} MiB", flush=True)
    print(f"open files {len(os.listdir('/proc/self/fd'))}")


if __name__ == "__main__":
    main()
