"""The sample data: the same bytes each time, every planted defect counted, the second night's difference."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sid_pipeline.sample import generate
from sid_pipeline.sample.build import DAYS, PRODUCTS, SEED
from sid_pipeline.sample.defects import KINDS
from sid_pipeline.sample.offers import BAD_OFFERS, RETAILERS
from sid_pipeline.sample.products import HEADER, contradicts
from sid_pipeline.sample.relevance import BAD_LABELS
from sid_pipeline.sample.vocabulary import load
from sid_pipeline.sample.wording import Size, parse_pack, product_name, write_ingredients

PROJECT = Path(__file__).resolve().parents[2]
COMMITTED = PROJECT / "data"
SIZE_LIMIT = 4_000_000

GENERATED_FILES = sorted(
    [f"catalogue/{day}/{name}.csv.gz" for day in DAYS for name in ("offers", "products")]
    + ["README.md", "taxonomy.csv", "taxonomy_v2.csv"]
    + ["relevance/examples.csv.gz", "relevance/products.csv.gz"]
)


def content(path: Path) -> bytes:
    """The file's bytes, unpacked: compressed bytes may differ between deflate libraries."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample")
    generate(out)
    return out


def raw_lines(path: Path) -> list[bytes]:
    return content(path).split(b"\n")


def records(data: bytes) -> list[list[str]]:
    """Parsed rows; NUL is shown as U+2400 because the csv module of Python 3.10 refuses it."""
    text = data.replace(b"\x00", "\u2400".encode()).decode("utf-8", errors="surrogateescape")
    csv.field_size_limit(1_000_000)
    return list(csv.reader(io.StringIO(text, newline="")))


def products(folder: Path, day: str) -> list[list[str]]:
    return records(content(folder / "catalogue" / day / "products.csv.gz"))[1:]


def dicts(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content(path).decode("utf-8"), newline="")))


def classified(rows: list[list[str]]) -> tuple[Counter[str], dict[str, list[str]]]:
    """Counts of each bad kind, recognised from the row alone, and the accepted rows by id."""
    found: Counter[str] = Counter()
    accepted: dict[str, list[str]] = {}
    for row in rows:
        if len(row) != len(HEADER):
            found[_broken_kind(row)] += 1
            continue
        product_id, title = row[0].strip(), row[1]
        if not product_id:
            found["empty_product_id"] += 1
        elif not title:
            found["empty_title"] += 1
        elif not title.strip():
            found["blank_title"] += 1
        elif len(title) > 2000:
            found["title_too_long"] += 1
        elif product_id in accepted:
            same = accepted[product_id] == row
            found["repeated_row" if same else "duplicate_product_id"] += 1
        elif any("\udc80" <= letter <= "\udcff" for letter in title):
            found["not_utf8"] += 1
        elif "\u2400" in title:
            found["nul_in_title"] += 1
        else:
            accepted[product_id] = row
            if re.search(r"[\x00-\x1f\x7f-\x9f\u2028]", title):
                found["control_characters"] += 1
            elif row[0] != product_id:
                found["padded_fields"] += 1
            elif row[6].startswith("-"):
                found["price_negative"] += 1
            elif not re.fullmatch(r"\d+\.\d\d", row[6]):
                found["price_not_a_number"] += 1
    return found, accepted


def _broken_kind(row: list[str]) -> str:
    if len(row) > len(HEADER):
        return "too_many_fields"
    if len(row) == 1:
        return "not_a_row"
    return "unclosed_quote" if row[-1].endswith("\n") else "too_few_fields"


def test_committed_data_is_what_the_generator_writes(full: Path) -> None:
    written = sorted(str(path.relative_to(full).as_posix()) for path in full.rglob("*") if path.is_file())
    assert written == GENERATED_FILES
    for name in GENERATED_FILES:
        assert content(COMMITTED / name) == content(full / name), f"data/{name}: run python -m sid_pipeline.sample"
    assert sum((COMMITTED / name).stat().st_size for name in GENERATED_FILES) < SIZE_LIMIT


def test_hash_seed_and_process_change_no_byte(tmp_path: Path) -> None:
    for hash_seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "sid_pipeline.sample", str(tmp_path / hash_seed), "--products", "400"],
            check=True,
            cwd=PROJECT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(PROJECT)},
        )
    for name in GENERATED_FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_another_seed_gives_other_products(tmp_path: Path) -> None:
    generate(tmp_path / "a", products=100, seed=1)
    generate(tmp_path / "b", products=100, seed=2)
    assert products(tmp_path / "a", DAYS[0]) != products(tmp_path / "b", DAYS[0])


def test_gzip_headers_hold_no_name_and_no_time(full: Path) -> None:
    for path in sorted(full.rglob("*.gz")):
        # RFC 1952: magic, deflate, no flags (so no file name), four bytes of time.
        assert path.read_bytes()[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(("night", "of"), [(0, "count"), (1, "second_night")])
def test_every_planted_defect_is_there_in_its_number(full: Path, night: int, of: str) -> None:
    found, accepted = classified(products(full, DAYS[night]))
    expected = {kind.name: getattr(kind, of) for kind in KINDS}
    if night == 1:
        expected.update({kind.name: kind.count for kind in KINDS if kind.action == "mend"})
    assert found == {name: count for name, count in expected.items() if count}
    mended = sum(kind.count for kind in KINDS if kind.action == "mend")
    good = [row for row in accepted.values() if not row[0].strip().startswith("P9")]
    assert len(good) == len(accepted) - mended
    if night == 0:
        assert len(good) == PRODUCTS
        assert 0.015 < sum(expected.values()) / PRODUCTS < 0.025
        readme = (full / "README.md").read_text(encoding="utf-8")
        for kind in KINDS:
            assert f"| {kind.name} | {kind.action} | {kind.count} |" in readme
        assert f"{len(accepted):,} products and rejects" in readme


def test_second_night_changes_about_two_percent_and_not_a_byte_more(full: Path) -> None:
    first, second = (classified(products(full, day))[1] for day in DAYS)
    new = second.keys() - first.keys()
    withdrawn = first.keys() - second.keys()
    changed = {key for key in first.keys() & second.keys() if first[key] != second[key]}
    readme = (full / "README.md").read_text(encoding="utf-8")
    assert f"{len(new)} new, {len(changed)} changed" in readme
    assert f"{len(withdrawn)} withdrawn" in readme
    assert min(len(new), len(withdrawn)) > 0
    assert 0.015 < (len(new) + len(changed) + len(withdrawn)) / PRODUCTS < 0.025
    columns = Counter(HEADER[i] for key in changed for i in range(len(HEADER)) if first[key][i] != second[key][i])
    assert set(columns) == {"title", "description", "size"}

    path = "catalogue/{}/products.csv.gz"
    unchanged = first.keys() - withdrawn - changed
    before, after = (set(raw_lines(full / path.format(day))) for day in DAYS)
    fresh = [line for line in after - before if line.split(b",")[0].decode("latin-1") in unchanged]
    # Rows of an unchanged product stand there as before, but for those that misuse its id.
    assert len(fresh) == sum(kind.second_night for kind in KINDS if kind.name == "duplicate_product_id")


def test_taxonomies_are_trees_and_every_known_category_is_a_leaf_path(full: Path) -> None:
    paths: dict[str, set[str]] = {}
    for name in ("taxonomy.csv", "taxonomy_v2.csv"):
        nodes = {row["node_id"]: row for row in dicts(full / name)}
        assert len(nodes) == len(dicts(full / name))
        parents = {row["parent_id"] for row in nodes.values()} - {""}
        assert parents <= nodes.keys()
        assert len({(row["parent_id"], row["name"]) for row in nodes.values()}) == len(nodes)
        leaf_paths = set()
        for node_id in nodes.keys() - parents:
            names: list[str] = []
            step = node_id
            while step:
                names.insert(0, nodes[step]["name"])
                step = nodes[step]["parent_id"]
                assert len(names) <= 4, f"{name}: {node_id} has no root within 4 levels"
            assert len(names) >= 3
            leaf_paths.add(" > ".join(names))
        paths[name] = leaf_paths
    assert len(paths["taxonomy.csv"]) >= 200
    assert paths["taxonomy_v2.csv"] - paths["taxonomy.csv"] == {
        "Dairy & Eggs > Cheese > Halloumi & grilling cheese",
        "Bakery > Bread > Poppadoms & naan",
        "Drinks > Coffee > Filter ground coffee",
        "Drinks > Coffee > Espresso ground coffee",
        "Drinks > Soft Drinks & Water > Kombucha & kefir",
    }
    assert paths["taxonomy.csv"] - paths["taxonomy_v2.csv"] == {
        "Dairy & Eggs > Cheese > Grilling cheese",
        "Pantry > World Foods > Poppadoms & naan",
        "Drinks > Coffee > Ground coffee",
    }

    categories = Counter(row[5] for row in classified(products(full, DAYS[0]))[1].values())
    known = {category for category in categories if category in paths["taxonomy.csv"]}
    assert len(known) >= 200
    unknown = sum(count for category, count in categories.items() if category and category not in known)
    assert 0 < unknown < 0.01 * PRODUCTS
    assert 0.02 < categories[""] / PRODUCTS < 0.04


def test_a_rename_and_a_move_keep_their_ids_and_a_split_does_not(full: Path) -> None:
    first, second = ({row["name"]: row["node_id"] for row in dicts(full / f"taxonomy{v}.csv")} for v in ("", "_v2"))
    assert second["Halloumi & grilling cheese"] == first["Grilling cheese"]
    assert second["Poppadoms & naan"] == first["Poppadoms & naan"]
    assert first["Ground coffee"] not in second.values()
    new_ids = {second[name] for name in ("Filter ground coffee", "Espresso ground coffee", "Kombucha & kefir")}
    assert new_ids.isdisjoint(first.values())
    assert len(new_ids) == 3


def test_no_two_good_products_have_the_same_text(full: Path) -> None:
    for day in DAYS:
        rows = classified(products(full, day))[1].values()
        texts = Counter(tuple(row[1:5]) for row in rows)
        assert sum(count - 1 for count in texts.values()) <= 5


def test_bad_offers_are_counted_and_popularity_falls_like_one_over_rank(full: Path) -> None:
    known = classified(products(full, DAYS[0]))[1]
    found: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    popularity: dict[str, list[int]] = {name: [] for name, _ in RETAILERS}
    for row in dicts(full / "catalogue" / DAYS[0] / "offers.csv.gz"):
        pair = (row["product_id"], row["retailer_id"])
        if row["product_id"] not in known:
            found["unknown_product"] += 1
        elif not row["retailer_id"]:
            found["empty_retailer"] += 1
        elif row["available"] not in ("true", "false"):
            found["available_not_a_flag"] += 1
        elif row["popularity"].startswith("-"):
            found["popularity_negative"] += 1
        elif not row["popularity"].isdigit():
            found["popularity_not_a_number"] += 1
        elif pair in seen:
            found["repeated_offer"] += 1
        else:
            popularity[row["retailer_id"]].append(int(row["popularity"]))
        seen.add(pair)
    assert found == BAD_OFFERS
    for orders in popularity.values():
        orders.sort(reverse=True)
        assert orders[99] == pytest.approx(orders[0] / 100, rel=0.1)
    assert {row["retailer_id"] for row in dicts(full / "catalogue" / DAYS[1] / "offers.csv.gz")} == popularity.keys()


def test_relevance_labels_have_their_layout_and_their_planted_faults(full: Path) -> None:
    judged = dicts(full / "relevance" / "examples.csv.gz")
    shown = {row["product_id"]: row for row in dicts(full / "relevance" / "products.csv.gz")}
    catalogue = classified(products(full, DAYS[0]))[1]
    assert shown.keys() <= catalogue.keys()
    assert {row["product_locale"] for row in shown.values()} == {"us"}

    pairs: dict[tuple[str, str], set[str]] = {}
    found: Counter[str] = Counter()
    per_query: Counter[str] = Counter()
    for row in judged:
        if row["esci_label"] not in ("E", "S", "C", "I"):
            found["unknown_grade"] += 1
        elif row["product_locale"] != "us":
            found["other_locale"] += 1
        elif row["product_id"] not in shown:
            found["missing_product"] += 1
        else:
            pairs.setdefault((row["query_id"], row["product_id"]), set()).add(row["esci_label"])
            per_query[row["query_id"]] += 1
    found["contradicting_pair"] = sum(len(labels) > 1 for labels in pairs.values())
    assert found == BAD_LABELS
    assert len(per_query) == 300
    assert min(per_query.values()) >= 8
    assert max(per_query.values()) <= 18
    splits: dict[str, set[str]] = {}
    for row in judged:
        splits.setdefault(row["query_id"], set()).add(row["split"])
    assert all(len(names) == 1 for names in splits.values())
    assert set.union(*splits.values()) == {"train", "test"}


def test_exact_products_have_what_the_query_asks_for(full: Path) -> None:
    judged = dicts(full / "relevance" / "examples.csv.gz")
    title = {row["product_id"]: row["product_title"].lower() for row in dicts(full / "relevance" / "products.csv.gz")}
    exact = [
        row["product_id"]
        for row in judged
        if row["query"] == "oat milk barista" and row["esci_label"] == "E" and row["product_locale"] == "us"
    ]
    assert len(exact) >= 2
    for product_id in exact:
        assert re.search(r"barista oat (milk|drink)", title[product_id]), title[product_id]


def test_a_small_catalogue_has_the_same_files_and_at_least_one_of_each_defect(tmp_path: Path) -> None:
    generate(tmp_path, products=400, seed=SEED)
    written = sorted(str(path.relative_to(tmp_path).as_posix()) for path in tmp_path.rglob("*") if path.is_file())
    assert written == GENERATED_FILES
    found, accepted = classified(products(tmp_path, DAYS[0]))
    assert set(found) == {kind.name for kind in KINDS}
    assert sum(not product_id.startswith("P9") for product_id in accepted) == 400


def test_too_small_a_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 100"):
        generate(tmp_path, products=99)


def test_every_type_of_every_leaf_has_a_brand_and_fits_something() -> None:
    vocabulary = load()
    for leaf in vocabulary.leaves:
        assert len(vocabulary.brands_of(leaf.segment)) >= 3, leaf.name
        for kind in leaf.types:
            fitting = [1 for v in leaf.variants for pack in leaf.packs if leaf.fits(kind, v, pack)]
            assert fitting, f"{leaf.name}: {kind} fits no variant and pack"


@pytest.mark.parametrize(
    ("pack", "size"),
    [
        ("400g", Size(1, "400", "g")),
        ("1.5l", Size(1, "1.5", "l")),
        ("6x330ml", Size(6, "330", "ml")),
        ("12 rolls", Size(12, "", "rolls")),
        ("4x56 wipes", Size(4, "56", "wipes")),
    ],
)
def test_packs_are_read(pack: str, size: Size) -> None:
    assert parse_pack(pack) == size


def test_names_put_the_variant_where_english_does() -> None:
    assert product_name("bagels", "Sesame") == "Sesame bagels"
    assert product_name("prosciutto", "Aged 12 Months") == "prosciutto Aged 12 Months"
    assert product_name("black olives", "with Oregano") == "black olives with Oregano"


def test_ingredients_follow_type_and_variant() -> None:
    from sid_pipeline.sample.draw import Draw

    written = write_ingredients("salmon or trout, salt, {v}", "trout fillets", "with Lemon & Dill", Draw("any"))
    assert written == "trout, salt, lemon, dill"


@pytest.mark.parametrize(
    ("tag", "kind", "variant", "made", "lie"),
    [
        ("gluten free", "penne", "Ridged", "durum wheat semolina, water", True),
        ("gluten free", "penne", "Ridged", "maize flour, rice flour", False),
        ("vegan", "oat milk", "Vanilla", "water, oats", False),
        ("vegan", "ice cream", "Vanilla", "milk, cream", True),
        ("vegetarian", "stonebaked pizza", "Pepperoni", "wheat flour, tomato", True),
        ("vegetarian", "stonebaked pizza", "Margherita", "wheat flour, tomato", False),
    ],
)
def test_a_tag_that_would_be_a_lie_is_left_out(tag: str, kind: str, variant: str, made: str, lie: bool) -> None:
    assert contradicts(tag, kind, variant, made) is lie
