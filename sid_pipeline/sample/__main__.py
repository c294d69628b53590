"""``python -m sid_pipeline.sample [OUT_DIR]`` writes the sample data (default: ``data``)."""

from __future__ import annotations

import argparse
from pathlib import Path

from sid_pipeline.sample.build import PRODUCTS, SEED, generate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sid_pipeline.sample", description="Write the sample data.")
    parser.add_argument("out_dir", nargs="?", type=Path, default=Path("data"))
    parser.add_argument("--products", type=int, default=PRODUCTS, help="good products of the first night")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    generate(options.out_dir, products=options.products, seed=options.seed)


if __name__ == "__main__":
    main()
