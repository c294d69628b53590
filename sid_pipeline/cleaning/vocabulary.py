"""The fixed words of the rules cleaner: ingredients, materials, forms, audiences and words that only sell.

Belongs here: word lists of general English (and the commonest claims of neighbouring languages). What is particular
to one catalogue is learned by `lexicon`. Ingredient phrases are compared by the stems of their words.
"""

from __future__ import annotations

from sid_pipeline.cleaning.text import word_set

FRUIT = word_set(
    """apple apricot avocado banana blackberry blackcurrant blueberry boysenberry cherry clementine coconut
    cranberry currant date dragonfruit elderberry elderflower fig goji grape grapefruit guava
    jackfruit kiwi lemon lime litchi lychee mandarin mango melon nectarine orange papaya passionfruit
    peach pear persimmon pineapple plum pomegranate prune quince raisin raspberry rhubarb strawberry
    sultana tangerine watermelon yuzu cantaloupe acai berry amla tamarind kokum"""
)
_PHRASES: frozenset[tuple[str, ...]] = frozenset({
    ("key", "lime"), ("blood", "orange"), ("meyer", "lemon"), ("passion", "fruit"), ("mixed", "berry"),
    ("sea", "salt"),
    ("green", "tea"), ("black", "pepper"), ("red", "pepper"), ("bell", "pepper"), ("sweet", "potato"),
    ("olive", "oil"),
    ("durum", "wheat"), ("brown", "rice"), ("white", "chocolate"), ("dark", "chocolate"), ("milk",
    "chocolate"),
    ("peanut", "butter"), ("almond", "butter"), ("coconut", "oil"), ("coconut", "milk"), ("almond", "milk"),
    ("soy", "milk"),
    ("oat", "milk"), ("aloe", "vera"), ("tea", "tree"), ("shea", "butter"), ("cocoa", "butter"), ("argan",
    "oil"),
    ("vitamin", "c"), ("vitamin", "d"), ("vitamin", "e"), ("vitamin", "b12"), ("vitamin", "d3"), ("omega",
    "3"),
    ("folic", "acid"), ("hyaluronic", "acid"), ("salicylic", "acid"), ("cane", "sugar"), ("maple", "syrup"),
    ("stainless", "steel"), ("cast", "iron"), ("carbon", "steel"), ("sun", "dried", "tomato"), ("cream",
    "cheese"),
    ("blue", "cheese"), ("goat", "cheese"), ("cottage", "cheese"), ("green", "chili"), ("black", "bean"),
    ("kidney", "bean"), ("pinto", "bean"), ("green", "bean"), ("black", "olive"), ("green", "olive"),
    ("brown", "sugar"),
    ("whole", "wheat"), ("white", "wine"), ("red", "wine"), ("apple", "cider"), ("lemon", "grass"), ("egg",
    "white"),
    ("dead", "sea", "salt"), ("activated", "charcoal"), ("baking", "soda"), ("chia", "seed"), ("flax",
    "seed"),
    ("sesame", "seed"), ("sunflower", "seed"), ("pumpkin", "seed"), ("poppy", "seed"), ("sunflower", "oil"),
    ("rapeseed", "oil"), ("avocado", "oil"), ("canola", "oil"), ("mustard", "oil"), ("sesame", "oil"),
    ("palm", "oil"), ("ground", "beef"), ("18", "k", "gold"), ("white", "gold"), ("yellow", "gold"),
    ("rose", "gold"), ("ice", "cream"), ("sour", "cream"), ("pine", "nut"), ("brazil", "nut"), ("macadamia",
    "nut"),
    ("water", "chestnut"), ("spring", "onion"), ("green", "onion"), ("red", "onion"), ("butternut", "squash"),
    ("wild", "rice"), ("basmati", "rice"), ("jasmine", "rice"), ("split", "pea"), ("chick", "pea"), ("black",
    "eyed", "pea"),
})  # fmt: skip
VEGETABLE = word_set(
    """artichoke arugula asparagus aubergine basil beet beetroot broccoli cabbage capsicum carrot cauliflower
    celery chard chickpea chili chilli chile chipotle chive cilantro coriander corn courgette cucumber
    dill edamame eggplant fennel garlic ginger habanero herb horseradish jalapeno kale kelp leek
    lemongrass lentil lettuce mint mushroom okra olive onion oregano paprika parsley parsnip pea
    pepper peppermint potato pumpkin quinoa radish rosemary saffron sage sauerkraut seaweed shallot
    shiitake spearmint spinach sprout squash sriracha tarragon thyme tomatillo tomato truffle turmeric
    turnip wasabi watercress yam zucchini fenugreek cumin cardamom clove cinnamon nutmeg anise vanilla
    curry masala neem tulsi methi jeera ajwain portobello portabella poblano serrano cajun bean chana
    dal urad moong toor rajma"""
)
STAPLE = word_set(
    """almond barley bran buckwheat bulgur cashew chestnut cocoa cacao coffee cornmeal couscous durum farro
    flax flaxseed granola hazelnut hemp honey macadamia malt millet molasses muesli nut oat oatmeal
    peanut pecan pistachio popcorn pretzel rice rye seed semolina sesame spelt sorghum soy soya sugar
    sunflower tapioca tempeh tofu walnut wheat yeast stevia agave caramel butterscotch chocolate fudge
    marshmallow nougat toffee praline espresso mocha latte matcha chai rooibos chamomile hibiscus
    jasmine lavender ragi jowar bajra poha sago chia salt vinegar mustard soy balsamic butterscotch
    tahini hummus salsa pesto guacamole teriyaki barbecue bbq ranch buttermilk turbinado licorice
    pecorino"""
)
ANIMAL = word_set(
    """anchovy bacon beef bison bonito boar buffalo butter calamari caviar cheddar cheese chicken chorizo
    clam cod colby crab cream crawfish duck egg emmental feta fish goat gorgonzola gouda gruyere
    halibut ham herring jack kefir lamb lobster mackerel manchego mascarpone milk mozzarella muenster
    mussel mutton octopus oyster parmesan pepperoni paneer ghee curd pork prawn prosciutto provolone
    quail queso rabbit ricotta romano roquefort salami salmon sardine sausage scallop shrimp squid
    steak swiss tilapia trout tuna turkey veal venison whey yogurt yoghurt asiago brie camembert
    havarti halloumi pastrami brisket gelatin collagen"""
)
CARE = word_set(
    """argan jojoba aloe charcoal chamomile collagen keratin biotin retinol niacinamide glycerin zinc
    eucalyptus menthol sandalwood patchouli bergamot citrus jasmine rose lotus lavender calendula
    arnica beeswax castor clay magnesium calcium iron potassium probiotic multivitamin melatonin
    glucosamine turmeric ginseng echinacea caffeine taurine creatine ibuprofen acetaminophen
    paracetamol fluoride bleach ammonia vitamin fiber fibre lycopene lutein iodine selenium camphor"""
)
MATERIAL = word_set(
    """acrylic alloy aluminium aluminum bamboo brass bronze canvas cardboard cashmere ceramic chiffon clay
    copper cork cotton crepe crystal denim diamond emerald enamel faux felt fleece foam georgette
    glass gold granite jute lace latex leather linen lycra marble melamine mesh metal microfiber
    microfibre nylon paper pearl pewter plastic platinum plush polycotton polyester polypropylene
    porcelain pvc rattan resin rayon rubber ruby sapphire satin silicone silk silver spandex steel
    stone stoneware suede swarovski tin titanium velvet vinyl viscose wax wicker wood wooden wool
    zircon pashmina"""
)

INGREDIENTS: frozenset[tuple[str, ...]] = _PHRASES | {
    (word,) for group in (FRUIT, VEGETABLE, STAPLE, ANIMAL, CARE, MATERIAL) for word in group
}
"""Stems of known ingredients, flavours and materials."""

FORMATS: dict[str, str] = {
    word: canonical
    for canonical, variants in {
        "frozen": "frozen", "canned": "canned tinned", "dried": "dried dehydrated",
        "freeze-dried": "freeze-dried",
        "fresh": "fresh freshly", "chilled": "chilled refrigerated", "sliced": "sliced slice slices",
        "shredded": "shredded", "grated": "grated", "diced": "diced", "chopped": "chopped",
        "crushed": "crushed",
        "minced": "minced mince", "ground": "ground milled", "whole": "whole", "halves": "halves halved",
        "pureed": "puree pureed purée", "smoked": "smoked", "roasted": "roasted",
        "cooked": "cooked pre-cooked precooked",
        "pickled": "pickled", "powder": "powder powdered powders", "liquid": "liquid",
        "spray": "spray aerosol sprays",
        "gel": "gel gels", "cream": "creme", "foam": "foaming mousse", "lotion": "lotion", "oil": "",
        "tablets": "tablet tablets caplets caplet", "capsules": "capsule capsules caps softgel softgels",
        "gummies": "gummies gummy",
        "drops": "drops", "tea bags": "teabags", "sachets": "sachet sachets", "pods": "pods k-cup k-cups",
        "wipes": "wipe wipes",
        "bar": "", "stick": "", "concentrate": "concentrate concentrated", "instant": "instant",
        "crumbled": "crumbled", "cubed": "cubed cubes",
        "flaked": "flakes flaked", "boneless": "", "filled": "", "granules": "granules granulated",
        "paste": "paste",
        "pouch": "", "refill": "refill refills", "roll-on": "roll-on", "loose leaf": "loose-leaf",
        "solid": "",
        "whipped": "whipped", "condensed": "condensed", "evaporated": "evaporated", "sparkling": "",
        "microwavable": "microwavable microwaveable",
    }.items()
    for word in variants.split()
}  # fmt: skip

AUDIENCES: dict[str, str] = {
    word: canonical
    for canonical, variants in {
        "babies": "baby babies baby's infant infants newborn newborns",
        "toddlers": "toddler toddlers toddler's",
        "kids": "kid kids kid's kids' child children children's childrens childs",
        "girls": "girl girls girl's girls'",
        "boys": "boy boys boy's boys'",
        "women": "women woman women's woman's womens ladies lady's female",
        "men": "men man men's man's mens gents male",
        "unisex": "unisex",
        "seniors": "senior seniors",
        "adults": "adult adults adult's",
        "puppies": "puppy puppies",
        "kittens": "kitten kittens",
        "dogs": "dog dogs dog's canine",
        "cats": "cat cats cat's feline",
        "birds": "",
        "pregnant women": "prenatal maternity",
    }.items()
    for word in variants.split()
}  # fmt: skip
AUDIENCE_ONLY_WITH_FOR = word_set("adult adults senior seniors male female man woman lady's dog dogs cat cats")
"""Words that name an audience only after `for` or before a noun of care or feeding; `hot dogs` are for "
"nobody's dog."""

SELLING_WORDS: frozenset[str] = word_set(
    """best amazing delicious tasty yummy premium finest super awesome fantastic incredible perfect
    perfectly great favourite favorite ultimate irresistible superb exclusive special offer sale bonus
    free! exciting excellent gourmet luxurious luxury deluxe supreme authentic genuine real improved
    better quality value wow must have bestseller limited edition everyday wonderful mouthwatering
    heavenly divine fabulous trendy stylish beautiful gorgeous stunning lovely choice select selected
    signature traditional pure natural naturally simply truly now only online buy popular trusted
    price discount hot! deal save exquisite elegant famous classic original orig org finest quality
    rated guaranteed each cheap trending bestselling delivery gift"""
)
"""Title words that sell and tell nothing of what the product is."""

PLACEHOLDERS: frozenset[str] = word_set(
    """n/a na none null nil unknown generic unbranded nobrand other others various misc miscellaneous tbd tba
    default test brand xxx 0 unspecified"""
) | {"no brand", "not available", "not applicable", "not specified"}
"""Brand fields that name no brand, folded."""
