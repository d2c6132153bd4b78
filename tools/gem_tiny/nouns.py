"""The vocabulary of gem-tiny: 100 nouns, their synonyms, and what each icon set calls their drawings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Noun:
    name: str
    synonyms: tuple[str, ...]
    icons: tuple[str, ...]
    """Icon names shared by noto, noto-v1, fluent-emoji, fluent-emoji-flat and openmoji."""
    fxemoji: tuple[str, ...]
    """Icon names of fxemoji, which has a naming of its own."""


# noun | synonyms | icons (default: the noun) | fxemoji icons (default: the noun)
TABLE = """
dog | puppy, hound | dog, dog-face, poodle | dog, dogside, poodle
cat | kitten, kitty | cat, cat-face | cat, catside
horse | pony | horse, horse-face | horse, horseface
cow | cattle | cow, cow-face | cow, cowface
pig | piglet, hog | pig, pig-face | pig, pigside
sheep | lamb | ewe | sheep
elephant | | |
bear | grizzly | |
tiger | | tiger, tiger-face | tiger, tigerside
monkey | ape | monkey, monkey-face | monkey, monkeyface
mouse | | mouse, mouse-face | mouse, mouseside
rabbit | bunny, hare | rabbit, rabbit-face | bunny, bunnyside
koala | | |
panda | | panda, panda-face | pandaface
penguin | | |
bird | | |
chicken | hen, rooster | chicken, rooster | chicken, rooster
chick | baby bird | baby-chick, front-facing-baby-chick, hatching-chick | babychick, frontfacingchick, hatchingchick
frog | toad | frog, frog-face |
crocodile | alligator | |
turtle | tortoise | |
snake | serpent | |
snail | | |
octopus | squid | |
fish | | fish, tropical-fish | fish, tropicalfish
whale | | whale, spouting-whale | whale, spurtingwhale
dolphin | | |
bee | honeybee, wasp | honeybee | honeybee
ladybug | ladybird | lady-beetle | ladybeetle
spider | | |
camel | dromedary | camel, two-hump-camel | bactriancamel, dromedarycamel
car | automobile | automobile, oncoming-automobile | automobile, oncomingautomobile
taxi | cab | taxi, oncoming-taxi | taxi, oncomingtaxi
bus | coach | bus, oncoming-bus | bus, oncomingbus
truck | lorry | delivery-truck, articulated-lorry | deliverytruck, articulatedlorry
ambulance | | |
fire engine | fire truck | fire-engine | fireengine
tractor | | |
bicycle | bike | |
motorcycle | motorbike | |
train | locomotive, railway engine | locomotive, train, high-speed-train | steamlocomotive, train, highspeedtrain
airplane | plane, aircraft | |
helicopter | chopper | |
rocket | spaceship | |
sailboat | yacht, boat | |
ship | liner, vessel | ship, passenger-ship |
anchor | | |
apple | | red-apple, green-apple | redapple, greenapple
banana | | |
pear | | |
peach | nectarine | |
orange | tangerine | tangerine | tangerine
lemon | | |
watermelon | melon | |
grapes | bunch of grapes | |
strawberry | berry | |
cherry | cherries | cherries | cherries
pineapple | | |
tomato | | |
eggplant | aubergine | | aubergine
corn | maize | ear-of-corn | earofmaize
mushroom | toadstool | |
bread | loaf | |
pizza | slice of pizza | | sliceofpizza
hamburger | burger | |
cake | birthday cake | birthday-cake, shortcake | birthdaycake, shortcake
doughnut | donut | |
ice cream | | soft-ice-cream, ice-cream | softicecream, icecream
beer | mug of beer | beer-mug, clinking-beer-mugs | beermug, clinkingbeermugs
wine | glass of wine | wine-glass | wineglass
tree | | deciduous-tree, evergreen-tree | deciduoustree, evergreen
palm tree | palm | palm-tree | palmtree
cactus | | |
sunflower | | |
rose | | |
tulip | | |
house | home, cottage | house, house-with-garden | housebuilding, housewithgarden
castle | fortress | | europeancastle
umbrella | parasol | umbrella, umbrella-with-rain-drops | umbrella, umbrellawithraindrops
key | | key, old-key | key, oldkey
lock | padlock | locked, unlocked | lock, openlock
hammer | mallet | |
scissors | pair of scissors | | blackscissors
pencil | | | lowerleftpencil
book | textbook | closed-book, blue-book, green-book, orange-book | closedbook, bluebook, greenbook, orangebook
clock | alarm clock | alarm-clock, mantelpiece-clock | alarmclock, manltepiececlock
hourglass | sandglass | hourglass-done, hourglass-not-done | hourglass, hourglassflowingsand
light bulb | lamp | light-bulb | lightbulb
camera | | camera, camera-with-flash | camera, camerawithflash
television | TV | |
telephone | phone | | blacktelephone
guitar | | |
trumpet | | |
bell | | |
crown | | |
hat | top hat | top-hat | tophat
shoe | sneaker | running-shoe, mans-shoe | mensrunner, mensshoe
balloon | | |
gift | present | wrapped-gift | present
trophy | cup | |
"""


def _names(field: str, default: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in field.split(",") if part.strip()) or ((default,) if default else ())


def _noun(line: str) -> Noun:
    name, synonyms, icons, fxemoji = (field.strip() for field in line.split("|"))
    key = name.replace(" ", "-")
    shared = _names(icons, key)
    return Noun(name, _names(synonyms, ""), shared, _names(fxemoji, shared[0].replace("-", "")))


NOUNS: tuple[Noun, ...] = tuple(_noun(line) for line in TABLE.strip().splitlines())
assert len(NOUNS) == 100 == len({noun.name for noun in NOUNS})

TRAINING_STYLES = ("noto", "noto-v1", "fxemoji", "fluent-emoji")
HELD_OUT_STYLES = ("fluent-emoji-flat", "openmoji")
