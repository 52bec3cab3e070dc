# SPDX-License-Identifier: Apache-2.0
"""Texts for distilling the text encoder: instructions from a grammar, everyday sentences, loose words.

`HELDOUT` was written by hand, apart from the grammar: (behaviour, text) that only the report reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from flowact_ros.data.sentences import sentence
from flowact_ros.data.wordings import WORDINGS

_ACTS: dict[str, tuple[str, ...]] = {
    "idle": ("idle", "idling", "waiting", "resting", "standing still", "doing nothing", "at rest", "relaxing", "breathing calmly",
             "waiting for somebody", "staying quiet", "on standby", "looking around", "standing by", "keeping still", "being bored"),
    "listening": ("listening", "listening closely", "paying attention", "hearing a question", "listening to the visitor", "nodding along",
                  "following the conversation", "hearing the user out", "being all ears", "listening to a story", "letting the guest talk"),
    "thinking": ("thinking", "pondering", "thinking about the answer", "considering the question", "reflecting", "searching for words",
                 "deep in thought", "wondering", "trying to remember", "hesitating", "concentrating", "thinking hard", "in doubt",
                 "making up the mind", "calculating", "rubbing the chin"),
    "speaking": ("speaking", "talking", "talking to the viewer", "answering", "explaining", "explaining the way", "telling a story",
                 "presenting", "giving directions", "speaking to the camera", "chatting", "announcing something", "reading the news",
                 "telling a joke", "describing a picture", "asking a question", "apologising", "reporting the weather", "singing"),
    "smile": ("smiling", "smiling warmly", "giving a smile", "beaming", "grinning", "pleased", "reacting with a smile", "looking happy",
              "showing joy", "a friendly smile", "being delighted"),
    "surprise": ("surprised", "astonished", "amazed", "reacting with surprise", "startled", "shocked", "raising the eyebrows",
                 "gasping", "eyes wide open", "taken aback", "stunned"),
    "laugh": ("laughing", "laughing out loud", "giggling", "chuckling", "bursting into laughter", "reacting with laughter", "cracking up",
              "laughing at a joke"),
    "greeting": ("greeting", "waving", "waving hello", "greeting a visitor", "welcoming somebody", "saying hello", "waving goodbye",
                 "saying good morning", "greeting the crowd", "bowing politely", "raising a hand in greeting"),
    "nod": ("nodding", "nodding yes", "agreeing", "nodding slowly", "showing approval", "confirming with a nod", "saying yes"),
    "shake": ("shaking the head", "saying no", "disagreeing", "refusing politely", "denying", "showing disapproval"),
    "look": ("looking left", "looking right", "looking up", "looking down", "turning to the left", "turning to the right", "glancing aside",
             "looking at the camera", "looking away", "turning the head", "gazing into the distance", "peeking to the side", "facing forward"),
    "wave": ("waving a hand", "raising the left hand", "raising the right hand", "pointing left", "pointing right", "showing an open palm",
             "making a fist", "giving a thumbs up", "clapping", "lowering the hands", "hand to the chin", "gesturing with both hands"),
    "sad": ("sad", "looking sad", "crying", "disappointed", "sorry", "worried", "concerned", "angry", "frowning", "annoyed", "afraid",
            "tired", "sleepy", "yawning", "closing the eyes", "blinking", "winking", "confused", "embarrassed", "proud", "curious"),
}  # fmt: skip
_FORMS = ("{a}", "{a}, {m}", "{m}, {a}", "{a} {h}", "{a} {h}, {m}", "the character is {a}", "the character is {a} {h}",
          "a person {a} {h}", "a robot {a}", "now {a}", "please be {a}", "keep {a} {h}", "{a} and {b}", "{a}, then {b}", "{a} while {b}",
          "start {a}", "stop {a}", "he is {a}, {m}", "she is {a} {h}", "the avatar is {a}, {m}", "a friendly face, {a}", "{a} {w}",
          "{a} {h} {w}", "not {a}", "no longer {a}", "{a} again", "speaking, {a}", "listening, {a}", "urgent: {a}")  # fmt: skip
_MANNERS = ("relaxed", "calm and neutral", "with a friendly face", "looking around now and then", "with small movements", "leaning forward",
            "looking up", "looking to the side", "nodding now and then", "eyes on the visitor", "with a smile", "without a smile",
            "eyebrows raised", "brows lowered", "head tilted", "hand to the chin", "with both hands", "with natural gestures",
            "with lively gestures", "one hand waving", "mouth open", "eyes wide", "shoulders shaking", "in a serious tone",
            "in a cheerful mood", "full of joy", "a bit worried", "hardly moving", "quietly", "with energy", "tired", "excited")  # fmt: skip
_HOW = ("calmly", "happily", "slowly", "quickly", "warmly", "politely", "quietly", "loudly", "seriously", "gently", "nervously", "kindly",
        "clearly", "sadly", "attentively", "briefly", "a little", "very much", "with interest", "with surprise", "heartily", "softly")  # fmt: skip
_WHEN = ("for a moment", "for a while", "at the end", "from time to time", "all the time", "as soon as possible", "after the question",
         "before answering", "during the greeting", "in front of the visitor", "in a shop", "in the hospital", "at the reception")  # fmt: skip
HELDOUT: tuple[tuple[str, str], ...] = (
    ("idle", "just hang around until somebody shows up"), ("idle", "no one is here, the face is peaceful"),
    ("idle", "quietly standing there, breathing"), ("listening", "the customer is asking something, be attentive"),
    ("listening", "hear what the guest has to say"), ("listening", "leaning in, following what is being said"),
    ("thinking", "hmm, not sure yet, eyes drift to the ceiling"), ("thinking", "figuring out what to reply"),
    ("thinking", "puzzled, weighing the options"), ("speaking", "give the answer aloud to the customer"),
    ("speaking", "talk about the opening hours"), ("speaking", "telling the guest where the lift is"),
    ("smile", "show a kind and happy expression"), ("smile", "corners of the mouth go up in delight"),
    ("surprise", "wow, did not expect that at all"), ("surprise", "jaw drops in amazement"),
    ("laugh", "that was so funny, ha ha"), ("laugh", "cannot stop laughing"),
    ("greeting", "someone walked in, say hi and wave"), ("greeting", "welcome the new guest with a hand wave"),
)  # fmt: skip


def instruction(rng: np.random.Generator) -> str:
    """One random instruction of the grammar."""
    kinds = list(_ACTS)
    a, b = (str(rng.choice(_ACTS[kinds[int(rng.integers(len(kinds)))]])) for _ in range(2))
    words = {"a": a, "b": b, "m": rng.choice(_MANNERS), "h": rng.choice(_HOW), "w": rng.choice(_WHEN)}
    return str(rng.choice(_FORMS)).format(**words)


def known() -> list[str]:
    """Every text that the project itself uses, and every act of the grammar alone."""
    return [*(w for group in WORDINGS.values() for w in group), *(a for acts in _ACTS.values() for a in acts)]


def texts(rng: np.random.Generator, count: int, vocabulary: Iterable[str] = ()) -> list[str]:
    """About `count` distinct texts: half instructions, a quarter sentences, the rest one to four words of `vocabulary`."""
    words = [w for w in vocabulary if re.fullmatch(r"[a-z]{3,}", w)][:8000]
    out = dict.fromkeys(known())
    for _ in range(count // 2):
        out[instruction(rng)] = None
    for _ in range(count // 4):
        out[sentence(rng, "train")] = None
    if words:
        # Common words come first in the list: draw them more often, and each of the most common once alone.
        out.update(dict.fromkeys(words[: count // 10]))
        for _ in range(count // 6):
            n = int(rng.integers(2, 5))
            out[" ".join(words[int(len(words) * rng.random() ** 2)] for _ in range(n))] = None
    return list(out)
