"""Everyday English for the corpus: hand-written patterns with slots.

A teacher can read anything, so what the little language model hears is decided here: the
commonest words of the language in the sentence shapes people type into a speech program.
"""

from __future__ import annotations

import random

SLOTS: dict[str, list[str]] = {
    "name": (
        "Anna Ben Carla David Emma Frank Grace Henry Ivy Jack Kate Leo Mary Nick Olivia Peter Rose "
        "Sam Tom Victor Wendy Alice Bob Charlie Daniel Elizabeth George Helen James Julia Laura "
        "Mark Michael Nancy Oscar Paul Rachel Robert Sarah Simon Susan Thomas William Lucy John"
    ).split(),
    "city": (
        "London|Paris|Berlin|New York|Boston|Chicago|Rome|Madrid|Tokyo|Sydney|Dublin|Vienna|"
        "Oslo|Toronto|Seattle|Denver|Lisbon|Prague|Athens|Cairo|Moscow|Texas|California|France|"
        "Germany|Italy|Spain|China|India|Japan|Canada|Mexico|Brazil|England|Scotland|Ireland"
    ).split("|"),
    "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "month": (
        "January February March April May June July August September October November December"
    ).split(),
    "num": (
        "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|"
        "sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|"
        "a hundred|two hundred|a thousand|twenty one|twenty five|thirty two|forty seven|"
        "sixty eight|ninety nine|three hundred|five thousand|a million"
    ).split("|"),
    "digits": [str(n) for n in list(range(2, 61)) + list(range(65, 101, 5)) + [200, 300, 500]],
    "ordinal": "first second third fourth fifth sixth seventh eighth ninth tenth last next".split(),
    "person": (
        "my mother|my father|my brother|my sister|my friend|our neighbor|the teacher|the doctor|"
        "the driver|the manager|the waiter|the old man|the young woman|the little girl|the boy|"
        "her husband|his wife|their daughter|my son|the students|the children|the police officer|"
        "the nurse|the farmer|the captain|the singer|the writer|the engineer|the artist|the judge|"
        "the president|the king|the queen|the customer|everyone|somebody|nobody|my uncle|my aunt|"
        "my grandmother|your grandfather|the baker|the lawyer|the scientist|the soldier|the team"
    ).split("|"),
    "pron": "I you we they he she".split(),
    "animal": (
        "dog cat horse bird fish cow sheep pig mouse rabbit fox wolf bear lion tiger monkey snake "
        "frog duck chicken goose elephant whale bee spider butterfly eagle owl deer goat"
    ).split(),
    "thing": (
        "book|car|phone|letter|key|bag|table|chair|window|door|lamp|picture|computer|bottle|cup|"
        "plate|knife|box|ball|hat|coat|shirt|shoe|ring|watch|clock|camera|radio|newspaper|ticket|"
        "map|pen|pencil|piano|guitar|bicycle|boat|train|plane|bus|truck|bridge|house|garden|tree|"
        "flower|stone|machine|engine|screen|button|message|story|song|movie|game|question|answer|"
        "problem|plan|idea|report|list|number|name|word|sentence|page|present|blanket|pillow|"
        "mirror|candle|umbrella|basket|ladder|hammer|bucket|wallet|jacket|sweater|package|program"
    ).split("|"),
    "food": (
        "bread|butter|cheese|milk|coffee|tea|water|juice|soup|rice|chicken|fish|salad|apples|"
        "oranges|bananas|grapes|cake|chocolate|ice cream|sugar|salt|pepper|eggs|potatoes|tomatoes|"
        "onions|beans|pasta|pizza|a sandwich|breakfast|lunch|dinner|cookies|honey|strawberries|"
        "vegetables|fruit|wine|lemonade|a pie|mushrooms|carrots"
    ).split("|"),
    "place": (
        "the house|the kitchen|the garden|the park|the city|the village|the school|the office|"
        "the station|the airport|the market|the hotel|the hospital|the library|the museum|"
        "the beach|the river|the lake|the mountains|the forest|the bridge|the church|the theater|"
        "the restaurant|the corner|the street|the field|the farm|the island|the garage|the bank|"
        "the post office|the bathroom|the bedroom|the front door|the top of the hill|the sea|"
        "the town|the castle|the shop|the university|the stadium|the harbor|the road|the valley"
    ).split("|"),
    "time": (
        "today|tomorrow|yesterday|this morning|this evening|tonight|last night|next week|"
        "last year|every day|at noon|at midnight|in the morning|in the afternoon|in the evening|"
        "on the weekend|next month|a long time ago|in the summer|in the winter|in the spring|"
        "right now|later|soon|once a week|for a while|all day long|before dinner|after school|"
        "a few days ago|in a moment|at the same time|on my birthday|before sunrise"
    ).split("|"),
    "adj": (
        "good|bad|big|small|old|new|young|long|short|high|low|hot|cold|warm|cool|fast|slow|easy|"
        "hard|happy|sad|strong|weak|rich|poor|clean|dirty|dark|bright|quiet|loud|soft|heavy|light|"
        "empty|full|open|closed|early|late|cheap|expensive|safe|dangerous|simple|difficult|famous|"
        "strange|beautiful|ugly|wonderful|terrible|important|useful|interesting|boring|funny|"
        "serious|friendly|angry|tired|hungry|thirsty|sick|healthy|busy|free|ready|sure|true|wrong|"
        "right|different|same|special|perfect|broken|lovely|sharp|smooth|thick|thin|wide|narrow|"
        "wet|dry|fresh|sweet|bitter|gentle|brave|clever|honest|lucky|nervous|polite|proud|calm"
    ).split("|"),
    "color": "red blue green yellow black white brown gray orange purple pink golden".split(),
    "adv": (
        "quickly|slowly|carefully|quietly|loudly|easily|suddenly|finally|usually|often|sometimes|"
        "never|always|really|probably|certainly|perhaps|again|together|alone|outside|well|badly|"
        "gently|happily|exactly|almost|already|immediately|clearly|simply|truly|early"
    ).split("|"),
    "vpast": (
        "found|lost|bought|sold|opened|closed|broke|fixed|wanted|needed|liked|loved|hated|saw|"
        "heard|made|took|gave away|brought|carried|dropped|cleaned|washed|painted|built|changed|"
        "remembered|forgot|described|explained|mentioned|chose|checked|followed|kept|left|moved|"
        "picked up|put down|threw away|wrote about|talked about|thought about|asked about|"
        "looked at|waited for|paid for|covered|touched|watched|finished|started|noticed|used|"
        "returned|borrowed|showed me|stole|shared|served|stopped|pushed|pulled|turned|missed"
    ).split("|"),
    "vbase": (
        "find|lose|buy|sell|open|close|break|fix|use|like|love|see|hear|make|take|bring|carry|"
        "drop|clean|wash|paint|build|change|remember|forget|describe|explain|choose|check|follow|"
        "keep|leave|move|throw away|write about|talk about|think about|ask about|look at|wait for|"
        "pay for|cover|touch|watch|finish|start|notice|return|borrow|share|stop|push|pull|turn"
    ).split("|"),
    "intrans": (
        "went|walked|ran|drove|flew|came back|returned|moved|traveled|rode|hurried|swam|sat|stood|"
        "lived|worked|played|slept|waited|arrived|met|stayed|sang|danced|laughed|cried|fell asleep|"
        "got lost|had dinner|studied|rested|talked|grew up|disappeared|spent the day"
    ).split("|"),
    "activity": (
        "read a book|go for a walk|play the piano|learn a new language|cook dinner|ride a bike|"
        "watch a movie|listen to music|write a letter|call a friend|take a picture|go swimming|"
        "clean the house|drink a cup of tea|travel around the world|plant some flowers|go home|"
        "sleep late|eat outside|work together|speak English|buy a new car|tell a story|start again|"
        "wait a little longer|solve the problem|build a boat|visit the museum|bake a cake|shop"
    ).split("|"),
    "weather": (
        "sunny|rainy|cloudy|windy|snowy|foggy|hot and dry|cold and wet|warm|a little cool|stormy"
    ).split("|"),
    "topic": (
        "music|history|science|the weather|the news|politics|art|football|mathematics|nature|"
        "space|medicine|technology|language|money|love|travel|education|business|the future|"
        "the past|the environment|the economy|philosophy|energy|water|freedom|the truth|health"
    ).split("|"),
}

PATTERNS: list[str] = """
Hello, my name is {name}.
Hi {name}, how are you today?
Good morning, {name}.
Good evening, everyone, and welcome to {city}.
Hello from {city}.
Hello, and thank you for calling.
Thank you very much for the {thing}.
Nice to meet you, {name}.
See you {time}.
Goodbye, {name}, and take care.
How do I get to {place}?
What time does the {thing} start?
Where did you {vbase} the {thing}?
When will {person} {vbase} the {thing}?
Why did {person} {vbase} the {adj} {thing}?
Who {vpast} the {color} {thing}?
Can you {vbase} the {thing} for me, please?
Could you please {activity}?
Would you like to {activity} {time}?
Do you want some {food}?
Have you ever been to {city}?
Is it going to be {weather} {time}?
Are you {adj}, or are you just {adj}?
How much does the {color} {thing} cost?
How many {animal}s are there near {place}?
It will be {weather} in {city} {time}.
The weather is {weather} and the wind is {adj}.
The temperature is {num} degrees.
It is {num} minutes past {num}.
It is {digits} degrees outside.
There are {digits} people waiting at {place}.
The meeting starts at {num} on {weekday}.
My birthday is on the {ordinal} of {month}.
Today is {weekday}, the {ordinal} of {month}.
I have {num} brothers and {num} sisters.
She is {num} years old.
He paid {digits} dollars for the {thing}.
Chapter {num}.
Page {digits} of the {thing} is missing.
The answer is {num}.
{num}, {num}, {num}, {num}.
The train to {city} leaves in {num} minutes.
Please turn {adv} at {place}.
Turn left at {place}, then go straight for {num} miles.
{person} {vpast} the {thing} {time}.
{person} {vpast} the {adj} {thing} near {place}.
{person} {vpast} a {color} {thing} and a {adj} {thing}.
{person} {intrans} near {place} {time}.
{person} {intrans} {adv} in {city}.
{person} {adv} {vpast} the {animal}.
{name} and {name} {intrans} together {time}.
{name} {vpast} the {thing}, but {name} did not.
{name} said that the {thing} was too {adj}.
{pron} never {vpast} the {thing} again.
{pron} {vpast} the {thing} because it was {adj}.
{pron} {vpast} it, and then {pron} {intrans} near {place}.
I think that {person} will {vbase} the {thing} {time}.
I don't think we should {vbase} the {thing}.
I'm sorry, but I can't {vbase} the {thing} {time}.
I'd like to {activity}, if you don't mind.
I want to {activity} with {name}.
I have to {activity} {time}.
I forgot to {vbase} the {thing}.
I was {adj} when {person} {intrans} near {place}.
We are going to {activity} {time}.
We should {activity} before it gets {adj}.
We had {food} and {food} for breakfast.
They are {adj} and {adj}, but never {adj}.
You can {activity} whenever you are {adj}.
You don't have to {vbase} every {thing}.
Let's {activity} {time}.
Let me {vbase} the {thing} first.
Don't {vbase} the {adj} {thing}.
Please {vbase} the {color} {thing} {adv}.
There is a {adj} {animal} in {place}.
There was a {color} {thing} on the {thing}.
The {animal} and the {animal} {intrans} in {place}.
The {color} {animal} looked at the {adj} {animal}.
The quick {color} {animal} jumped over the {adj} {animal}.
The {adj} {thing} is next to the {adj} {thing}.
The {thing} is {adj}, and the {thing} is {adj}.
The {thing} in {place} is {adj} and {color}.
This {thing} is very {adj}.
That {thing} was not as {adj} as the other one.
These {thing}s are made of paper and wood.
Those {animal}s live near {place}.
What a {adj} {thing}!
What is the {adj} {thing} doing in {place}?
It was a {adj} day, and {person} {intrans} in {place}.
Once upon a time, a {adj} {animal} lived near {place}.
In {month}, {person} {intrans} near {place}.
When {person} {intrans}, the {thing} was {adj}.
If you {vbase} the {thing}, it will be {adj}.
After {food}, {person} {intrans} to {place}.
Before {month}, we must {vbase} the {thing}.
Everything about {topic} is {adj}.
{person} knows a lot about {topic}.
Tell me something about {topic}.
I would like to learn more about {topic}.
{topic} is more {adj} than {topic}.
My favorite {thing} is the {color} one.
My favorite food is {food} with {food}.
{food} and {food} are {adj} for you.
He put the {food} on the {thing}.
The shop sells {food}, {food}, and {food}.
Nobody knows why {person} {vpast} the {thing}.
Maybe {person} {intrans} in {city} {time}.
Yes, I {vpast} it {time}.
No, {person} is not in {place}.
Of course, you may {vbase} it.
As far as I know, {person} is {adj}.
In my opinion, the {thing} is too {adj}.
For example, {person} {vpast} a {thing}.
On the other hand, the {thing} is {adj}.
To be honest, I don't {vbase} {topic}.
Not every {thing} is {adj}.
All of the {thing}s were {adj}.
Most people like {food} and {topic}.
Some {animal}s are {adj}, and others are {adj}.
Every {thing} has a {adj} {thing}.
Each of us {vpast} a {thing}.
How {adj} it is to {activity}!
It is {adv} time to {activity}.
It takes about {num} hours to drive to {city}.
Is there a {adj} {thing} in {place}?
Did you hear what {name} said about {topic}?
Has anyone seen my {color} {thing}?
Which {thing} do you like, the {color} one or the {color} one?
Whose {thing} is this?
What do you think about {topic}?
What did {person} {vbase} {time}?
How long have you lived in {city}?
How was your trip to {city}?
Shall we {activity} or {activity}?
My {thing} is {adj}; yours is {adj}.
{name}, please {vbase} the {thing} before {weekday}.
"I will {vbase} the {thing}," said {name}.
I can see the {thing}, the {thing}, and the {animal} from here.
The sun was {adj} over {place}.
The water in {place} is {adj} and {adj}.
Your {thing} has been sent to {city}.
Your order of {digits} {thing}s is ready.
Warning, the {thing} is {adj}.
This is a test of the {adj} {thing}.
This is {name} speaking.
The text is read by a small {thing}.
A small model can {activity}.
Please leave a message after the tone.
Press {num} to hear the {thing} again.
Sorry, I did not understand the {thing}.
The {ordinal} {thing} is {color}, and the {ordinal} one is {color}.
""".strip().split("\n")


def fill(pattern: str, rng: random.Random) -> str:
    """Replaces every {slot} by a random filler and tidies the capital and the article."""
    out: list[str] = []
    rest = pattern
    while "{" in rest:
        head, _, tail = rest.partition("{")
        slot, _, rest = tail.partition("}")
        word = rng.choice(SLOTS[slot])
        if head.endswith(" a ") and word[0] in "aeio" and not word.startswith("one"):
            head = head[:-1] + "n "
        out.append(head + word)
    text = "".join(out) + rest
    first = next(i for i, ch in enumerate(text) if ch.isalnum())
    return text[:first] + text[first].upper() + text[first + 1 :]
