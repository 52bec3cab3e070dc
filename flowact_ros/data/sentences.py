# SPDX-License-Identifier: Apache-2.0
"""What the characters say in training: short English sentences from a small grammar and from fixed lists.

They lean towards lips that open and close: bilabials, open and rounded vowels, syllable drills, counting.
"""

from __future__ import annotations

import numpy as np

from flowact_ros.data.splits import HELDOUT_SENTENCES, HELDOUT_TEXTS, check_split, normalized

GREETINGS = (
    "Hello there!", "Good morning, and welcome.", "Hi, how are you today?", "Welcome back, my friend.",
    "Good afternoon, may I help you?", "Good evening, everybody.", "Hey, nice to meet you.",
    "Bye bye, see you soon.", "Goodbye, and have a wonderful day.", "Thank you so much for coming.",
    "Oh, hello! I did not see you there.", "Welcome aboard, please come in.",
    "It is a pleasure to meet you.", "Pardon me, may I ask your name?", "What a beautiful morning!",
    "I am happy that you are here.", "Please come a little closer.", "Take care, and come back soon.",
)  # fmt: skip
SMALL_TALK = (
    "I love the smell of fresh bread in the morning.", "My battery is full, so I am in a very good mood.",
    "Have you been here before?", "Today feels like a good day for a walk.",
    "People often ask me if I ever sleep.", "I am made of numbers, but I like a good story.",
    "You have a lovely voice, by the way.", "That sounds perfect to me.", "Maybe, maybe not, who knows?",
    "I beg your pardon, could you repeat that?", "Wow, that is amazing!", "Of course, no problem at all.",
    "Let me think about that for a moment.", "Hmm, that is a very good question.",
    "My memory is small, but my heart is big.", "Pop music makes me move my head.",
    "I have never seen the ocean, have you?", "Oh no, I am so sorry about that.",
    "Yes, absolutely, with pleasure.", "Well, why not both?",
    "We humans, oh, I mean you humans, are funny.", "Blue is my favorite color, what is yours?",
    "Sometimes I watch the clouds through the window.", "Do you prefer the summer or the winter?",
    "A smile is the shortest way between two people.", "Between you and me, I prefer jazz.",
    "May I tell you something about this place?", "You look a bit tired, would you like some water?",
    "Bravo, that was really well done!", "I was about to say the same thing.",
)  # fmt: skip
JOKES = (
    "What do you call a bear with no teeth? A gummy bear.",
    "Why was the computer cold? Because it left its windows open.",
    "I told my boss a joke about paper. It was tearable.",
    "Why do bees hum? Because they do not know the words.",
    "Parallel lines have so much in common. What a pity they will never meet.",
    "What is brown and sticky? A stick, of course.",
    "My robot friend opened a bakery. Now he makes a lot of dough.",
    "Why did the banana visit the doctor? It was not peeling well.",
    "I would tell you a pizza joke, but it is too cheesy.",
    "What do you call a sleeping bull? A bulldozer.", "Why can a bicycle not stand alone? It is two tired.",
    "How does a robot eat a burger? One byte at a time.",
)  # fmt: skip
RICH = (
    "Peter Piper picked a peck of pickled peppers.", "Betty bought a bit of better butter.",
    "Many merry men made a mighty meal of mushrooms.", "Five fresh fish filets for very fussy visitors.",
    "How much wood would a woodchuck chuck?", "Which wristwatches are Swiss wristwatches?",
    "Father bought a fabulous violet velvet vest.", "A big black bug bit a big black bear.",
    "The boat bobbed up and down beside the pier.", "Mama and papa popped a hundred pink balloons.",
    "Thirty three thieves thought that they thrilled the throne.",
    "Zebras zig and zag through the zoo at noon.", "The yellow yacht yawned in the young wind.",
    "Joyful giants juggle jars of orange jam.", "Vivid waves of vapor move over the village.",
    "Proper copper coffee pots make proper coffee.", "We were away a year ago.",
    "Show me the smooth blue moon above the pool.", "Hop on the bus before it rumbles off.",
    "Bring the broom, the bucket, and a big soft sponge.", "My mother's maple muffins melt in my mouth.",
    "He threw three free throws from behind the bench.", "The cook took a good look at the wooden hook.",
    "Few pupils knew the beautiful new music room.", "Abby imagined a map of the warm bay.",
    "Ooh, aah, what an awesome view from up here!", "Bob, bop, boom, bam, and the drum begins.",
    "I am, you are, we are, and they are ready.", "Our hour is over, our power is low.",
    "Eat each green pea, please, and leave the leek.",
)  # fmt: skip
_SYLLABLES = (
    "ba da ga ma pa ta ka na va fa wa la sha boo bee moo me pooh papa mama boom bop pop map mob wow vow fee foo "
    "bow pow pie my bye"
).split()
_NUMBERS = tuple(
    "one,two,three,four,five,six,seven,eight,nine,ten,eleven,twelve,thirteen,twenty,thirty,forty,fifty,sixty,seventy,"
    "eighty,ninety,one hundred,one thousand,five million".split(",")
)

# Grammar: a template's {name} is replaced by a random entry of the list of that name.
_WORDS: dict[str, tuple[str, ...]] = {
    "place": (
        "pharmacy", "museum shop", "emergency room", "main lobby", "bakery", "book store", "waiting room",
        "parking garage", "elevator", "coffee bar", "children's ward", "information desk", "bathroom",
        "pet shop", "modern art room", "map room", "ballroom", "cafeteria", "playground", "swimming pool",
        "movie theater", "bus stop", "platform", "bank", "garden",
    ),
    "floor": (
        "ground floor", "first floor", "second floor", "third floor", "fourth floor", "basement",
        "top floor", "upper level",
    ),
    "turn": (
        "turn left", "turn right", "go straight ahead", "move past the fountain",
        "walk along the blue line", "take the stairs", "take the elevator up", "pass the big window",
        "follow the signs", "go back to the main hall", "go through the open door",
    ),
    "side": (
        "on your left", "on your right", "in front of you", "just behind the bookshop",
        "beside the palm tree", "above the lobby", "opposite the bank", "below the bridge",
        "between the two pillars", "around the corner",
    ),
    "thing": (
        "book", "apple", "umbrella", "map", "phone", "camera", "piano", "lamp", "bicycle", "bottle", "ball",
        "puzzle", "pumpkin", "backpack", "pillow", "robot", "boat", "balloon", "picture", "table", "violin",
        "blanket", "postcard", "window", "spoon",
    ),
    "adjective": (
        "big", "beautiful", "blue", "broken", "marvelous", "purple", "simple", "warm", "old", "wooden",
        "happy", "brown", "famous", "empty", "bright", "lovely", "small", "awful", "modern", "smooth",
        "heavy", "pink", "cheap", "deep", "wonderful",
    ),
    "person": (
        "my mother", "the baker", "Paul", "Emma", "Doctor Brown", "my best friend", "a young boy",
        "the old farmer", "Abby", "the painter", "somebody", "everybody", "the manager", "Bob", "Maya",
        "a famous poet", "the nurse", "Tom", "your neighbor",
    ),
    "verb": (
        "bought", "broke", "painted", "remembered", "moved", "wrapped", "opened", "found", "borrowed",
        "washed", "filmed", "picked up", "carried", "showed me", "forgot", "loved", "described", "mended",
        "put away", "photographed",
    ),
    "when": (
        "this morning", "before breakfast", "last November", "in the afternoon", "at half past five",
        "a moment ago", "by mistake", "on Monday", "every evening", "in the middle of the night",
        "after the movie", "while it was raining", "for the first time",
    ),
    "food": (
        "apple pie", "tomato soup", "a bowl of rice", "mushroom pizza", "banana bread", "a cup of cocoa",
        "pepper jam", "pancakes", "a piece of pumpkin pie", "warm milk", "green beans", "popcorn", "a plum",
        "lemonade", "beef with mashed potatoes",
    ),
    "weather": (
        "sunny", "rainy", "foggy", "warm", "windy", "cloudy", "a bit cold", "very mild", "wonderful",
        "stormy",
    ),
    "number": _NUMBERS,
    "minute": (
        "five", "ten", "fifteen", "twenty", "about thirty", "forty five", "two", "a few more",
    ),
    "open": (
        "Well", "Oh", "Okay", "You know", "By the way", "Of course", "Maybe", "Now", "Hmm", "Right", "Sure",
        "Wow",
    ),
    "polite": (
        "please", "if you please", "my friend", "dear visitor", "no problem", "with pleasure",
    ),
    "be": (
        "Please", "Kindly", "Now", "Then", "First", "Just",
    ),
    "feeling": (
        "happy", "a bit tired", "full of hope", "very proud", "amused", "bored", "overjoyed", "calm",
        "impressed", "worried",
    ),
}  # fmt: skip
_TEMPLATES = (
    "The {place} is on the {floor}, {side}.", "{be} {turn}, then {turn}, and the {place} is {side}.",
    "You can find the {place} {side}.", "{open}, the {place} opens in {minute} minutes.",
    "To get to the {place}, {turn} and {turn}.", "{person} {verb} the {adjective} {thing} {when}.",
    "{open}, {person} {verb} a {adjective} {thing}.", "Would you like {food} or {food}?",
    "I would recommend {food} today.", "We have {food} and {food} for {number} dollars.",
    "The weather is {weather} today, and {weather} tomorrow.", "{open}, it will be {weather} {when}.",
    "The {adjective} {thing} costs {number} dollars and {number} cents.",
    "Your number is {number}, please wait {minute} minutes.",
    "How many {thing}s do you need, {number} or {number}?", "{open}, I feel {feeling} {when}.",
    "{person} was {feeling} because of the {adjective} {thing}.", "Is this your {adjective} {thing}?",
    "May I show you the {place}?", "{open}, that {thing} looks {adjective}, {polite}.",
    "{number}, {number}, {number}, {number}.", "Put the {thing} above the {thing}, {polite}.",
    "{person} and {person} {verb} the {thing} together.", "Why is the {thing} so {adjective}?",
    "{open}! What a {adjective} {thing}!", "Room {number} is {side}, {polite}.",
)  # fmt: skip
FIXED = (*GREETINGS, *SMALL_TALK, *JOKES, *RICH)


def _drill(rng: np.random.Generator) -> str:
    if rng.random() < 0.3:
        first = int(rng.integers(0, 9))
        return ", ".join(_NUMBERS[first : first + int(rng.integers(4, 7))]).capitalize() + "."
    count = int(rng.integers(4, 9))
    joint = ", " if rng.random() < 0.3 else " "
    return joint.join(rng.choice(_SYLLABLES) for _ in range(count)).capitalize() + "."


def _from_grammar(rng: np.random.Generator) -> str:
    out = str(rng.choice(_TEMPLATES))
    while "{" in out:
        head, _, rest = out.partition("{")
        name, _, tail = rest.partition("}")
        out = head + str(rng.choice(_WORDS[name])) + tail
    return out[0].upper() + out[1:]


def sentence(rng: np.random.Generator, split: str) -> str:
    """A random sentence of a split; training never draws a held-out one."""
    if check_split(split) == "heldout":
        return str(rng.choice(HELDOUT_SENTENCES))
    while True:
        kind = rng.random()
        if kind < 0.35:
            text = str(rng.choice(FIXED))
        elif kind < 0.85:
            text = _from_grammar(rng)
        else:
            text = _drill(rng)
        if normalized(text) not in HELDOUT_TEXTS:
            return text
