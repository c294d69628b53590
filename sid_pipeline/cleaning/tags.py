"""Recognises claims (gluten-free, no added sugar, vegan) and audiences, with their negations.

Belongs here: phrases with a canonical name. Free descriptive words of a title are not claims.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sid_pipeline.cleaning.text import fold, lowered
from sid_pipeline.cleaning.vocabulary import AUDIENCE_ONLY_WITH_FOR, AUDIENCES

# What a product can be free from -> the canonical name of the claim. Diet first, then the rest.
_FREE_DIETARY = {
    "gluten": "gluten", "wheat": "wheat", "grain": "grain", "grains": "grain", "dairy": "dairy",
    "milk": "dairy",
    "lactose": "lactose", "nut": "nut", "nuts": "nut", "tree nut": "nut", "tree nuts": "nut",
    "peanut": "peanut", "peanuts": "peanut",
    "soy": "soy", "soya": "soy", "egg": "egg", "eggs": "egg", "sugar": "sugar", "fat": "fat",
    "trans fat": "trans-fat", "trans fats": "trans-fat",
    "cholesterol": "cholesterol", "caffeine": "caffeine", "alcohol": "alcohol", "salt": "salt",
    "sodium": "sodium",
    "meat": "meat", "gmo": "gmo", "gmos": "gmo", "msg": "msg", "yeast": "yeast", "carb": "carb",
    "carbs": "carb",
    "palm oil": "palm-oil", "lactosa": "lactose", "azucar": "sugar", "alcool": "alcohol",
}  # fmt: skip
_FREE_OTHER = {
    "preservative": "preservative", "preservatives": "preservative", "additive": "additive",
    "additives": "additive",
    "fragrance": "fragrance", "fragrances": "fragrance", "perfume": "fragrance", "scent": "fragrance",
    "paraben": "paraben",
    "parabens": "paraben", "sulfate": "sulphate", "sulfates": "sulphate", "sulphate": "sulphate",
    "sulphates": "sulphate",
    "silicone": "silicone", "silicones": "silicone", "silicon": "silicone", "phthalate": "phthalate",
    "phthalates": "phthalate",
    "phosphate": "phosphate", "phosphates": "phosphate", "dye": "dye", "dyes": "dye", "chlorine": "chlorine",
    "bleach": "bleach",
    "bpa": "bpa", "cruelty": "cruelty", "aluminium": "aluminium", "aluminum": "aluminium",
    "ammonia": "ammonia", "oil": "oil",
    "acid": "acid", "nitrate": "nitrate", "nitrates": "nitrate", "nitrite": "nitrite", "nitrites": "nitrite",
    "antibiotic": "antibiotic",
    "antibiotics": "antibiotic", "hormone": "hormone", "hormones": "hormone", "pesticide": "pesticide",
    "pesticides": "pesticide",
    "chemical": "chemical", "chemicals": "chemical", "plastic": "plastic", "latex": "latex", "lead": "lead",
    "soap": "soap",
    "artificial colours": "artificial-colour", "artificial colors": "artificial-colour",
    "artificial colour": "artificial-colour",
    "artificial color": "artificial-colour", "artificial flavours": "artificial-flavour",
    "artificial flavors": "artificial-flavour",
    "artificial flavour": "artificial-flavour", "artificial flavor": "artificial-flavour",
    "artificial sweeteners": "artificial-sweetener",
    "artificial sweetener": "artificial-sweetener", "artificial preservatives": "preservative",
    "artificial ingredients": "artificial-ingredient",
    "added preservatives": "preservative", "mineral oil": "mineral-oil", "toxin": "toxin", "toxins": "toxin",
    "tear": "tear",
}  # fmt: skip
_FREE = {**_FREE_DIETARY, **_FREE_OTHER}
_SUBSTANCE = "|".join(sorted((word.replace(" ", "[ -]") for word in _FREE), key=lambda word: (-len(word), word)))

# Canonical claim -> pattern. Order does not matter: the longest match at a place wins.
_DIETARY = {
    "vegan": r"vegan(?:s|o|e|er|es|en)?(?!\w|[ -]leather)|100 ?% plant[ -]based",
    "plant-based": r"plant[ -]based",
    "vegetarian": r"vegetarians?|100 ?% veg(?!\w)|v[ée]g[ée]tarien(?:ne)?|vegetarisch",
    "organic": r"organic(?:ally)?|org(?=\.? )|biologique|ecol[oó]gico|aus biologischem anbau|"
    r"bio(?=[ -](?:milch|joghurt|brot|tomat|pasta|nudel))",
    "kosher": r"kosher(?! salt| dill)|pareve|parve",
    "halal": r"halal",
    "keto": r"keto(?:genic)?(?:[ -]friendly)?",
    "paleo": r"paleo(?:[ -]friendly)?",
    "whole30": r"whole ?30",
    "raw": r"raw(?= vegan)|raw food",
    "non-gmo": r"non[ -]gmo|gmo[ -]free|not genetically modified|no gmos?",
    "whole-grain": r"whole[ -]?grains?|wholegrains?|multi[ -]?grains?|7[ -]grain|12[ -]grain",
    "whole-wheat": r"whole[ -]?wheat|wholewheat|wholemeal|whole meal",
    "unsweetened": r"unsweetened|non sucr[ée]e?|ungesüßt",
    "unsalted": r"unsalted|ungesalzen",
    "no-added-sugar": r"no (?:added |refined |extra )(?:cane )?sugars?(?: added)?|no sugars? added|"
    r"without added sugars?|"
    r"zero added sugars?|0 ?% added sugars?|sans sucres? ajout[ée]s?|sin az[uú]car(?:es)? a[ñn]adid[oa]s?|"
    r"ohne zuckerzusatz",
    "no-added-salt": r"no (?:added )?salt added|no added salt|without added salt|sans sel ajout[ée]",
    "low-fat": r"low(?:er)?[ -]fat|light fat|\d{1,2}(?:\.\d)? ?% fat[ -]free|1 ?% (?:milk ?fat|lowfat)|"
    r"lowfat|reduced[ -]fat|"
    r"\d ?% reduced fat|1/3 less fat|half[ -]fat|semi[ -]skimmed|part[ -]skim|less fat",
    "fat-free": r"non[ -]?fat|zero fat|0 ?% fat|skimmed(?= milk)|skim(?= milk)",
    "low-sodium": r"(?:low(?:er)?|reduced|less|light)[ -](?:in )?(?:sodium|salt)|(?:low|"
    r"reduced) in (?:sodium|salt)",
    "low-sugar": r"(?:low(?:er)?|reduced|less)[ -](?:in )?sugars?|\d+ ?% less sugar",
    "low-calorie": r"(?:low(?:er)?|reduced)[ -]calories?|low[ -]cal|\d+ calories?|zero calories?|"
    r"calorie[ -]free|0 calories?|diet(?= (?:soda|cola|coke|pepsi|tonic|ginger|root|drink|beverage|lemonade|"
    r"iced))",
    "low-carb": r"(?:low(?:er)?|reduced)[ -]carb(?:s|ohydrates?)?",
    "high-protein": r"high[ -](?:in )?protein|protein[ -](?:rich|packed)|rich in protein|source of protein|"
    r"extra protein",
    "high-fibre": r"high[ -](?:in )?fib(?:er|re)|rich in fib(?:er|re)|source of fib(?:er|re)|extra fib(?:er|"
    r"re)",
    "gluten-free": r"sans gluten|sin gluten|senza glutine|glutenfrei|ohne gluten|gf(?=\W|$)",
    "lactose-free": r"sans lactose|sin lactosa|laktosefrei|senza lattosio",
    "sugar-free": r"sans sucre|zuckerfrei|zero sugars?|sugarless|sin az[uú]car",
    "dairy-free": r"non[ -]dairy",
    "caffeine-free": r"decaf(?:feinated)?",
    "alcohol-free": r"non[ -]?alcoholic|0 ?% alcohol|0[.,]0 ?% (?:alc|beer)|alkoholfrei|sans alcool",
    "grass-fed": r"(?:\d+ ?% )?grass[ -]fed",
    "sprouted": r"sprouted",
}  # fmt: skip
_OTHER = {
    "free-range": r"free[ -]range|cage[ -]free|pasture[ -]raised",
    "wild-caught": r"wild[ -]caught",
    "fair-trade": r"fair[ -]?trade(?:d)?",
    "cruelty-free": r"not tested on animals|against animal testing|no animal testing",
    "fragrance-free": r"unscented|unperfumed",
    "hypoallergenic": r"hypo[ -]?allergenic",
    "dermatologically-tested": r"dermatologically tested|dermatologist[ -](?:tested|recommended)",
    "antibacterial": r"anti[ -]?bacterial",
    "biodegradable": r"biodegradable",
    "compostable": r"compostable",
    "recycled": r"\d* ?%? ?recycled",
    "reusable": r"reus[ae]+ble",
    "disposable": r"disposable",
    "waterproof": r"water[ -]?proof",
    "microwave-safe": r"microwave[ -](?:safe|able)",
    "dishwasher-safe": r"dishwasher[ -]safe",
    "rechargeable": r"rechargeable",
    "handmade": r"hand[ -]?(?:made|crafted)",
    "ready-to-eat": r"ready[ -]to[ -]eat",
    "ready-to-cook": r"ready[ -]to[ -](?:cook|fry|heat)",
    "ready-to-bake": r"ready[ -]to[ -]bake",
    "ready-to-drink": r"ready[ -]to[ -]drink",
    "ready-to-feed": r"ready[ -]to[ -]feed",
    "ready-to-use": r"ready[ -]to[ -](?:use|serve)",
}  # fmt: skip

_PATTERN_GROUPS = [
    *((tag, pattern) for tag, pattern in _DIETARY.items()),
    *((tag, pattern) for tag, pattern in _OTHER.items()),
]
_CLAIM_OF_GROUP = {f"c{i}": tag for i, (tag, _) in enumerate(_PATTERN_GROUPS)}
_CLAIMS = re.compile(
    r"(?<![\w])(?:"
    r"free (?:from|of) (?P<list>[^.;:!?()|]{2,120})"
    r"|(?P<frees>(?:(?:" + _SUBSTANCE + r")(?: ?[,&/] ?| and | or |-free and |-free, ?))+(?:" + _SUBSTANCE +
    r"))"
    r"[ -]free(?! ?-?range)"
    r"|(?P<free>" + _SUBSTANCE + r")(?:[ -]?free|[ -]frei)(?! ?-?range)"
    r"|(?:no|zero|without|0 ?%|sans|ohne|sin|contains no|with no|not? any) (?:any )?(?P<no>" + _SUBSTANCE +
    r")(?! (?:added|testing|bake|free))"
    r"|" + "|".join(f"(?P<c{i}>{pattern})" for i, (_, pattern) in enumerate(_PATTERN_GROUPS)) + r")(?!\w)",
)  # fmt: skip
_LIST_SUBSTANCE = re.compile(rf"(?<!\w)(?:{_SUBSTANCE})(?!\w)")
_LIST_END = re.compile(r"\b(?:but|with|made|contains?|which|that|so|for|is|are)\b")

# `not suitable for vegetarians or vegans`: from the negation to the claim nothing but such words may stand.
_NEGATED = re.compile(
    r"(?:\bnot|n't|\bnon|\bnever|\bcannot|\bno longer|\bunsuitable|\bnicht|\bnon)[ -]+"
    r"(?:(?:be|been|yet|suitable|intended|recommended|appropriate|fit|certified|strictly|fully|entirely|"
    r"100 ?%|necessarily|"
    r"guaranteed|considered|guarantee|a|an|for|to|as|any|label(?:l)?ed|sold|vegetarians?|vegans?|or|and|the|"
    r"diets?|geeignet|für)[ ,-]+)*$",
)
_CONTAINS = re.compile(
    r"(?<!may )(?<!might )(?<!no )\bcontains?:? (?:[\w-]+,? (?:and )?){0,5}?(gluten|wheat|barley|rye|milk|"
    r"dairy|lactose|cream|butter|egg|eggs|nuts|"
    r"peanuts|soy|soya|sugar|alcohol|caffeine|meat|gelatin|gelatine|honey|beef|pork|fish)\b(?!-free| free|"
    r"-? ?substitute)",
)
_CONTRADICTS = {
    "gluten": ("gluten-free",), "wheat": ("gluten-free", "wheat-free"), "barley": ("gluten-free",),
    "rye": ("gluten-free",),
    "milk": ("dairy-free", "vegan"), "dairy": ("dairy-free", "vegan"), "cream": ("dairy-free", "vegan"),
    "butter": ("dairy-free", "vegan"),
    "lactose": ("lactose-free",), "egg": ("egg-free", "vegan"), "eggs": ("egg-free", "vegan"),
    "nuts": ("nut-free",),
    "peanuts": ("peanut-free", "nut-free"), "soy": ("soy-free",), "soya": ("soy-free",),
    "sugar": ("sugar-free",),
    "alcohol": ("alcohol-free",), "caffeine": ("caffeine-free",), "meat": ("vegan", "vegetarian"),
    "gelatin": ("vegan", "vegetarian"),
    "gelatine": ("vegan", "vegetarian"), "honey": ("vegan",), "beef": ("vegan", "vegetarian"),
    "pork": ("vegan", "vegetarian"),
    "fish": ("vegan", "vegetarian"),
}  # fmt: skip
_TRIGGER = re.compile(
    r"free|frei|no |non|zero|without|sans|sin |senza|ohne|0 ?%|veg|véga|plant|org|bio|eco|koscher|kosher|"
    r"pare?ve|halal|keto|paleo|whole|raw|"
    r"gmo|grain|un[ps]|low|light|less|reduced|skim|lite|fat|half|calor|cal|diet|protein|fib|gf|decaf|alco|"
    r"alk|fed|sprouted|cage|past|caught|"
    r"trade|tested|testing|allergenic|dermat|bacterial|degrad|compost|recycl|reus|dispos|proof|safe|"
    r"microwav|recharg|hand|ready|unsweet|unge|laktose|contain",
)  # fmt: skip

DIETARY_TAGS: frozenset[str] = frozenset(_DIETARY) | {f"{name}-free" for name in _FREE_DIETARY.values()}


@dataclass(frozen=True)
class Claims:
    """The claims of one text in order of appearance, their spans, and those that the text itself denies."""

    dietary: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


_NO_CLAIMS = Claims()


def may_claim(text: str) -> bool:
    """False for most texts without any claim: a cheap test before the search for claims."""
    return _TRIGGER.search(lowered(text)) is not None


@lru_cache(maxsize=16384)
def read_claims(text: str) -> Claims:
    """Reads the claims of a normalised text. A claim that the text also denies or contradicts is no claim.

    `not suitable for vegans` and `contains milk` deny `vegan`; `may contain nuts` denies nothing.
    """
    text = lowered(text)
    if not may_claim(text):
        return _NO_CLAIMS
    found: dict[str, None] = {}
    denied: dict[str, None] = {}
    spans: list[tuple[int, int]] = []
    for match in _CLAIMS.finditer(text):
        tags, span = _tags_of(match)
        if not tags:
            continue
        negation = _NEGATED.search(text, max(0, span[0] - 60), span[0])
        if negation:
            span = (negation.start(), span[1])
        spans.append(span)
        for tag in tags:
            (denied if negation else found)[tag] = None
    for match in _CONTAINS.finditer(text):
        denied.update(dict.fromkeys(_CONTRADICTS[match[1]]))
    claims = [tag for tag in found if tag not in denied]
    return Claims(
        dietary=tuple(tag for tag in claims if tag in DIETARY_TAGS),
        other=tuple(tag for tag in claims if tag not in DIETARY_TAGS),
        denied=tuple(denied),
        spans=tuple(spans),
    )


def merge_claims(claims: Sequence[Claims]) -> Claims:
    """The claims of all parts of a text; what one part denies, none claims."""
    denied = dict.fromkeys(tag for claim in claims for tag in claim.denied)
    dietary = dict.fromkeys(tag for claim in claims for tag in claim.dietary)
    other = dict.fromkeys(tag for claim in claims for tag in claim.other)
    return Claims(
        dietary=tuple(tag for tag in dietary if tag not in denied),
        other=tuple(tag for tag in other if tag not in denied),
        denied=tuple(denied),
    )


def _tags_of(match: re.Match[str]) -> tuple[list[str], tuple[int, int]]:
    group = match.lastgroup or ""
    start, end = match.span()
    if group in ("free", "no"):
        return [_free_tag(match[group])], (start, end)
    if group == "frees":
        return [_free_tag(m.group()) for m in _LIST_SUBSTANCE.finditer(match["frees"])], (start, end)
    if group == "list":
        listed = match["list"]
        stop = _LIST_END.search(listed)
        listed = listed[: stop.start()] if stop else listed
        substances = list(_LIST_SUBSTANCE.finditer(listed))
        if not substances:
            return [], (start, end)
        return [_free_tag(m.group()) for m in substances], (start, match.start("list") + substances[-1].end())
    return [_CLAIM_OF_GROUP[group]], (start, end)


def _free_tag(substance: str) -> str:
    name = _FREE[fold(substance).replace("-", " ")]
    return "non-gmo" if name == "gmo" else f"{name}-free"


_AUDIENCE = re.compile(
    r"(?<!\w)(?P<for>for (?:your |the |all |young |small |large |both )?)?(?P<who>"
    + "|".join(sorted(map(re.escape, AUDIENCES), key=lambda word: (-len(word), word)))
    + r")(?!\w)",
)
_CARE_NOUN = re.compile(
    r"[ -]+(?:dry |wet |canned )?(?:food|treats?|litter|formula|shampoo|chews?|toys?|collar|diapers?|"
    r"multivitamin|vitamins?|wipes|lotion|powder|oil|wash|cereal|snacks|incontinence|briefs?)\b",
)
_NOT_AUDIENCE = re.compile(
    r"[ -]+(?:(?:\w+ ){0,2}(?:leaf|leaves|salad|greens)|carrots?|spinach|sweetcorn|leeks?|onions?|beets?|"
    r"beetroots?|plum|tomato(?:es)?|pak|aubergines?|corn|kale|bella|portabella|"
    r"potato(?:es)?|arugula|lettuce|bok|back|ruth|swiss|red|peas|"
    r"spring|romaine|gherkins?|bottle|doll|dolls|shower|girl|figure|cabbage|proof)\b",
)


def read_audience(text: str) -> tuple[str | None, tuple[tuple[int, int], ...]]:
    """The audience a normalised title names,
    and the spans that name it; None when it names none or many kinds.

    In `cat food` the audience is part of the product type, so its span is left out.
    """
    who: dict[str, None] = {}
    spans: list[tuple[int, int]] = []
    text = lowered(text)
    for match in _AUDIENCE.finditer(text):
        word = match["who"]
        if _NOT_AUDIENCE.match(text, match.end()):
            continue
        if word in AUDIENCE_ONLY_WITH_FOR and not match["for"] and not _CARE_NOUN.match(text, match.end()):
            continue
        who[AUDIENCES[word]] = None
        if match["for"] or not _CARE_NOUN.match(text, match.end()):
            spans.append(match.span())
    return _one_audience(set(who)), tuple(spans)


def _one_audience(who: set[str]) -> str | None:
    if len(who) <= 1:
        return next(iter(who), None)
    for broad, narrow in (
        ("unisex", {"men", "women", "unisex"}),
        ("kids", {"kids", "boys", "girls", "toddlers"}),
        ("dogs", {"dogs", "puppies", "adults", "seniors"}),
        ("cats", {"cats", "kittens", "adults", "seniors"}),
        ("babies", {"babies", "toddlers", "kids"}),
        ("women", {"women", "girls", "adults", "seniors", "pregnant women"}),
        ("men", {"men", "boys", "adults", "seniors"}),
    ):
        if who <= narrow and broad in (who | {"unisex", "kids"}):
            return broad
    return None
