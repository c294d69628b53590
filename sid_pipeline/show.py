"""The texts of `sid show`."""

from __future__ import annotations

from sid_pipeline.cleaning.schema import RESERVED
from sid_pipeline.resources.warehouse import Warehouse
from sid_pipeline.trace import FlavourTrace, ProductTrace, prefix_names, products_under, sid_prefixes

_BOOKKEEPING = RESERVED | {"fallback", "reason"}


def show_product(trace: ProductTrace) -> str:
    """A product through every stage."""
    lines = [f"product {trace.product_id}, snapshot {trace.snapshot}"]
    for rejection in trace.rejections:
        lines += [
            "",
            f"rejected  {rejection['source_file']} row {rejection['source_row']}: {rejection['message']}",
        ]
    if trace.product:
        lines += ["", "raw text"]
        for name in ("title", "brand", "size", "category", "description"):
            value = trace.product[name]
            if value:
                lines.append(f"  {name:<12} {' > '.join(value) if isinstance(value, list) else value}")
    if trace.cleaned:
        lines += ["", f"cleaned by {trace.cleaned['source']}, confidence {trace.cleaned['confidence']:.2f}"]
        if trace.cleaned["fallback"]:
            lines.append(f"  a fallback      {trace.cleaned['reason']}; tried again the next night")
        for name, value in trace.cleaned.items():
            if value and name not in _BOOKKEEPING:
                lines.append(f"  {name:<15} {', '.join(value) if isinstance(value, list) else value}")
        lines += [f"  dropped         {value}" for value in trace.cleaned["unsupported"]]
    for flavour in trace.flavours:
        lines += ["", *_show_flavour(flavour)]
    return "\n".join(lines)


def _show_flavour(trace: FlavourTrace) -> list[str]:
    note = f"  ({trace.note})" if trace.note else ""
    if trace.sid is None:
        return [f"{trace.flavour}: no SID ({trace.reason}){note}"]
    lines = [f"{trace.flavour}: {trace.sid}{note}", f"  embedded as: {trace.text}"]
    lines += [f"  {prefix:<16} {name}" for prefix, name in trace.names[:3]]
    if trace.neighbours:
        lines.append(f"  others under {trace.shared_prefix}:")
        lines += [f"    {sid:<16} {product:<10} {title}" for product, sid, title in trace.neighbours]
    else:
        lines.append("  no other product shares its first code")
    return lines


def show_prefix(warehouse: Warehouse, prefix: str, flavours: list[str], release: str, snapshot: str, limit: int) -> str:
    """The products under a prefix, per flavour."""
    lines: list[str] = []
    for flavour in flavours:
        found = products_under(warehouse, flavour, release, snapshot, prefix)
        names = prefix_names(warehouse, flavour, release, sid_prefixes(prefix))
        title = names.get(prefix, "")
        lines += ["", f"{flavour} {prefix}{f' ({title})' if title else ''}: {len(found)} products"]
        lines += [f"  {sid:<16} {product:<10} {text}" for product, sid, text in found[:limit]]
        if len(found) > limit:
            lines.append(f"  and {len(found) - limit} more (--limit)")
    return "\n".join(lines).lstrip("\n")
