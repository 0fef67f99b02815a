"""Texts of the pretraining: nouns, known and arbitrary, in sound and in unsound states."""

import numpy as np


NORMAL_STATES = ("{}", "a {}", "the {}", "{}", "a {}", "the {}", "an intact {}", "a perfect {}", "a {} without flaw")
ABNORMAL_STATES = (
    "a damaged {}",
    "a broken {}",
    "a {} with flaw",
    "a {} with defect",
    "a {} with damage",
    "a damaged {}",
    "a broken {}",
    "a {} with flaw",
    "a {} with defect",
    "a {} with damage",
    "a faulty {}",
    "an irregular {}",
)
TEMPLATES = ("{}.", "a photo of {}.", "{}.", "a photo of {}.", "a close-up of {}.")

GENERIC_NOUNS = (
    "object surface part product thing item material piece component sample workpiece tile metal image scan"
).split()

ADJECTIVES = (
    "black white grey gray dark light bright brown red green blue yellow orange pink purple golden silver "
    "big small large little long short thin thick flat round oval square straight smooth rough shiny dull glossy "
    "clear coloured plain old new clean soft hard heavy wet dry single double many three four two one "
    "left right upper lower top side front inner outer plastic wooden metallic magnetic electric electronic "
    "printed painted polished industrial medical natural ceramic textile paper rubber concrete bare fine coarse"
).split()

WORDS = (
    "a an the of with and in on for photo close up view image picture damaged broken flaw defect damage intact perfect "
    "without faulty irregular normal good bad letters engraved small speckles legged placed seen from above "
    "adapter aerial anchor antenna apple apron arm arrow axle bag ball balloon bamboo banana band bandage bank barrel "
    "base basin basket bat bath battery beach bead beam bean bed bell belt bench berry bicycle bin bird blade blanket "
    "blind block blouse board boat body bolt bone book boot bottle bow bowl box bracket braid brain brake branch bread "
    "brick bridge brush bucket bud bulb bumper bus button cabinet cable cake camera can candle candy cap capacitor car "
    "card cardboard carpet carrot cart case cashew casing castle cat cell cement chain chair chalk charger cheese chewing "
    "chip chocolate circle circuit clamp clay clip clock cloth cloud coal coat coil coin collar colon comb concrete cone "
    "connector container cookie copper cord cork corn cotton counter cover crate crayon cream crystal cube cup curtain "
    "cushion cylinder dial diode dish door dough drawer dress drill drum duct ear egg elbow enamel endoscopy engine "
    "eraser eye fabric face fan feather felt fence fibre film filter fin finger fish flag flange flask flesh floor "
    "flower foam foil fork frame fruit fryum funnel fur fuse garlic gasket gate gauge gear gem glass glove glue gold "
    "grain granite grape grass gravel grid grip ground guitar gum hair hammer handle hat hazelnut head headlight heel "
    "helmet hinge holder hook hoop hose house housing ice insulator iron ivory jacket jar jewel joint jug juice kettle "
    "key keyboard knife knob knot label lace ladder lamp lane latch leaf leather leg lemon lens letter lever lid lime "
    "linen link lip liver lock log loop lung macaroni magnet map marble mask mat match mesh meter microphone mirror "
    "module mosaic motor mould mouse mug muscle mushroom nail napkin neck needle net nose notebook nozzle nut oat oil "
    "olive onion outlet oven packet pad paint pan panel pants paper pasta paste pattern pavement peach peanut pear "
    "pearl pebble pen pencil pepper phone piano pill pillow pin pipe plank plate plug plum plywood pocket pole polyp "
    "polymer pot potato pouch powder printer pulley pump puzzle rack rail resin resistor retina ribbon rice ring rivet "
    "road robe rock rod roll roof root rope rose rubber rug ruler sack saddle sail salt sand sandpaper saucer sausage "
    "saw scarf scissors screen screw seal seat seed sensor shaft sheet shelf shell shield ship shirt shoe shovel sieve "
    "sign silk sink skin sleeve slide slipper soap sock socket soil sole spade spike spiral spoke sponge spool spoon "
    "spring stamp staple star steel stem step stick stitch stone stool stop strap straw string strip suit sugar switch "
    "syringe table tablet tank tap tape tent terminal thread tin tire tissue toast toilet tomato tongue tool tooth "
    "toothbrush towel toy track train transistor tray tree tube tunnel turbine twig tyre umbrella valve vase vein "
    "velvet vessel vial violin vinyl wafer wagon wall wallet walnut watch water wax web wedge weld wheel wheat whistle "
    "window wing wire wood wool wrench yarn zipper bracelet bottom brush conveyor bearing brass bronze chrome pcb led "
    "usb chipset sheet stainless rolled cast forged milled woven knitted perforated marbled matted fibrous blotchy "
    "stratified speckled striped ribbed brushed concentric rings pattern texture fabric background lines shape tissue "
    "bone chest brain head knee skull tumour x-ray"
).split()

HELD_OUT_WORDS = frozenset(
    "linen leather perforated sheet mosaic marble marbled corrugated cardboard plaid flannel tread carpet pebbled "
    "ceramic loop nut hazelnut blister pack packet comb domino leaf tree connector pin bearing ruler folding".split()
)
"""Words of the demo's test categories: the tokenizer may know them as words, training never uses them in a text."""

_ONSETS = "b c d f g h j k l m n p r s t v w z br cl dr fl gr pl pr sh sk st th tr".split()
_VOWELS = "a e i o u ai ea ee oo ou y".split()
_CODAS = " b ck d g l ll m n nd ng p r rk rt s sh st t x".split(" ")


def vocabulary_words(scene_nouns: list[str]) -> list[str]:
    """Every whole word the tokenizer should know, sorted: the lists here and the words of the scenes' nouns."""
    words = set(WORDS) | set(ADJECTIVES) | set(GENERIC_NOUNS)
    for phrase in (*scene_nouns, *NORMAL_STATES, *ABNORMAL_STATES, *TEMPLATES):
        words.update(phrase.replace("{}", " ").replace(".", " ").replace("-", " ").split())
    return sorted(word.lower() for word in words if word.isalpha())


def _invented_word(rng: np.random.Generator) -> str:
    """A pronounceable word that names nothing, so that no noun is ever a surprise."""
    syllables = []
    for _ in range(rng.integers(1, 4)):
        syllables += [str(rng.choice(part)) for part in (_ONSETS, _VOWELS, _CODAS)]
    return "".join(syllables)


def arbitrary_noun(rng: np.random.Generator) -> str:
    """A noun phrase without any tie to the picture: usually one or two words, now and then a long description."""
    if rng.random() < 0.15:
        return str(rng.choice(GENERIC_NOUNS))
    length = int(rng.choice([1, 2, 3, 5, 9], p=[0.5, 0.3, 0.12, 0.05, 0.03]))
    words = []
    while len(words) < length:
        draw = rng.random()
        table = ADJECTIVES if draw < 0.2 and len(words) < length - 1 else WORDS
        word = _invented_word(rng) if draw > 0.8 else str(rng.choice(table))
        if word not in HELD_OUT_WORDS:
            words.append(word)
    return " ".join(words)


def describe_noun(rng: np.random.Generator, noun: str) -> str:
    """The scene's own noun, sometimes with an adjective before it."""
    adjective = str(rng.choice(ADJECTIVES))
    return f"{adjective} {noun}" if rng.random() < 0.2 and adjective not in HELD_OUT_WORDS else noun


def state_texts(rng: np.random.Generator, noun: str) -> tuple[str, str]:
    """A prompt of the noun as it should be and one of it with something wrong, in one template."""
    template = str(rng.choice(TEMPLATES))
    normal, abnormal = str(rng.choice(NORMAL_STATES)), str(rng.choice(ABNORMAL_STATES))
    return template.format(normal.format(noun)), template.format(abnormal.format(noun))
