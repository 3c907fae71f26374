"""Texts for decoder_mend.py: what people type first, templates, and pieces as long form cuts them.

The corpus has few short questions, and those are what overdrove: here they are many. `HELD_OUT` is
for the figures in the model card; nothing is trained on it.
"""

from __future__ import annotations

import itertools
import random

from templates import PATTERNS, fill

ASKING = "How|Why|When|Where|Who|What|So how|And how|But why|Now where".split("|")
ASKED = (
    "are you|are they|are we|is he|is she|is it|was it|were you|is that|do you do|do you know|"
    "did you go|can we go|will you come|old is he|old is she|old are they|far is it|much is it|"
    "many are there|long was it|big is it|about you|about her|else is there|is your name|"
    "is my book|was your day|is the old house|are the children"
).split("|")
GREETING = (
    "Well|So|Hi|Hey|Dear sir|Mary|Good morning|Thank you|Yes|But|My friend|Please|Now|Mother|"
    "Good day|Tell me|Welcome|Doctor|I see|Ah"
).split("|")
GREETED = (
    "how are they|how are we|how are your parents|how are you both|how are things|"
    "how are you doing|how is he|how is she now|how is your father|how old are they|"
    "how old is she|how high is it|how hard is it|how hot is it|how about you|how about now|"
    "how do you do|are you hungry now|are you alone|are you all here|who are they|"
    "who are you talking to|what are we doing"
).split("|")
SHORT = (
    "Hello.|Hello!|Hi.|Hi there.|Hey!|Good morning.|Good night.|Good evening.|Goodbye.|Bye.|Yes.|"
    "No.|Yes, please.|No, thank you.|Thank you.|Thanks a lot.|Please.|Sorry.|Okay.|All right.|"
    "Wow!|Oh no!|Ouch!|Go!|Stop!|Help!|Come in.|Sit down.|Be quiet.|Wait a moment.|Never mind.|"
    "Well done!|Of course.|I see.|I know.|I am fine.|How nice!|How lovely!|How old!|How now?|"
    "Why not?|Why?|How?|Who?|What?|Where?|When?|Really?|Me too.|You too.|How so?|And you?|"
    "How wonderful it is!|How far?|How many?|How much?|How long?|How come?|What now?|Who knows?|"
    "Test.|One.|Two, three.|Testing, one, two, three.|Home.|House.|Now.|Our house.|Out loud."
).split("|")

HELD_OUT = (
    "How are you?|How old are you?|How are you today?|How old is your brother?|"
    "How is your mother?|How do I look?|How was the party?|How did it go?|How about tomorrow?|"
    "How are things at home?|How long is the bridge?|How high is the tower?|Who are you?|"
    "Who is at the door?|What are you doing?|What is the time?|Where are you going?|"
    "Where is the house?|Why are you crying?|When are we leaving?|Are you hungry?|"
    "Are you all right?|Is it cold outside?|Do you like it here?|Have you eaten?|"
    "Hello, how are you?|Oh, how are you?|Hello there!|Hi, my name is Ann.|Good afternoon.|"
    "See you soon.|Take care.|Look out!|Hurry up!|I am so happy!|Our owl is out.|"
    "How now, brown cow?|All is well that ends well.|He owes you an hour.|"
    "Go home, you old fool!"
).split("|")


def greeting_texts(seed: int) -> list[str]:
    """Questions after a word or two: these overdrove most, up to 20 times full scale."""
    rng = random.Random(seed)
    texts = [f"{a}, {b}?" for a, b in itertools.product(GREETING, GREETED)]
    return rng.sample(texts, len(texts))


def trained_texts(count: int, seed: int) -> list[str]:
    """Short questions and exclamations, a quarter; sentences, a half; long pieces, a quarter."""
    rng = random.Random(seed)
    asked = [f"{a} {b}?" for a, b in itertools.product(ASKING, ASKED)]
    held = set(HELD_OUT)
    brief = [text for text in rng.sample(asked, len(asked)) + 3 * SHORT if text not in held]
    rng.shuffle(brief)
    texts = []
    for index in range(count):
        if index % 4 == 0:
            texts.append(brief[index // 4 % len(brief)])
        elif index % 4 == 1:
            piece = fill(rng.choice(PATTERNS), rng)
            while len(piece) < 140:
                piece += " " + fill(rng.choice(PATTERNS), rng)
            texts.append(piece[:200])
        else:
            texts.append(fill(rng.choice(PATTERNS), rng))
    return texts
