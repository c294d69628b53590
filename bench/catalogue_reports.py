"""The report's full table of both flavours on real catalogues.

    python bench/catalogue_reports.py [--only instacart ...] [--set FIELD=VALUE ...]

Each catalogue is embedded and trained on whole, by the defaults, and judged by `evaluation.report.evaluate` on all its
products, beside the report's baselines. Prints one Markdown table per catalogue: a column for each flavour, and one
for residual k-means on the same vectors.
"""

from __future__ import annotations

import argparse
import time

from catalogues import FLAVOURS, NAMES, codebook, products
from rqvae_common import setting

from sid_pipeline.evaluation.report import (
    OURS,
    RESIDUAL_KMEANS,
    EvaluationInput,
    evaluate,
    figures,
    markdown_table,
    shown,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    for name in args.only:
        catalogue = products(name)
        columns = []
        for flavour in FLAVOURS:
            x = catalogue.vectors(flavour)
            began = time.monotonic()
            book = codebook(catalogue, x, flavour, **dict(args.set))
            trained = time.monotonic() - began
            codes = book.encode(x)
            began = time.monotonic()
            report = evaluate(
                EvaluationInput(
                    flavour=flavour,
                    release="bench",
                    as_of_snapshot="-",
                    product_ids=catalogue.ids,
                    texts=catalogue.titles,
                    categories=catalogue.categories,
                    vectors=x,
                    codes=codes,
                    reconstruct=lambda rows, book=book, codes=codes: book.decode(codes[rows]),
                    codebook_size=book.codebook_size,
                )
            ).to_dict()
            print(f"{name} {flavour}: codebook {trained:.0f} s, report {time.monotonic() - began:.0f} s", flush=True)
            columns += [(flavour, report["tables"][OURS]), (f"{flavour}, k-means", report["tables"][RESIDUAL_KMEANS])]
        rows = [
            [figure.label, *(shown(figure, figure.pick(table)) for _, table in columns)] for figure in figures(report)
        ]
        print(f"\n{name}, {len(catalogue.ids):,} products\n")
        print(markdown_table(["figure", *(label for label, _ in columns)], rows), "\n", flush=True)


if __name__ == "__main__":
    main()
