"""Sentences for the evaluation. None is in the corpus, and corpus.py never sees this file.

`TUNING` is for choosing checkpoints and sampling defaults; `FINAL` is for the figure that is
published, and nothing is chosen by it.
"""

TUNING = """
Good evening, how can I help you?
The children are playing in the garden behind the house.
I would like a cup of coffee with milk and sugar.
We walked along the river until the sun went down.
Could you open the window, please?
My sister works at a small school in the city.
It rained all night, but this morning the sky is clear.
The train was late again, so I missed the meeting.
Please remember to bring your umbrella tomorrow.
He has two dogs and a very old cat.
What time does the library close on Friday?
She put the letter on the table and left the room.
Thank you for waiting so patiently.
The old man told us a story about the sea.
There are seven days in a week.
I can't find my keys anywhere.
They want to build a new bridge across the river.
Reading books is a good way to learn new words.
The soup is too hot to eat right now.
If you turn left at the corner, you will see the bank.
""".strip().split("\n")

FINAL = """
Hello, and welcome to our little show.
The moon was bright above the quiet village.
Do you know where the nearest doctor is?
I have been waiting for the bus for twenty minutes.
Our neighbor grows tomatoes and beans in his garden.
The teacher asked the students to close their books.
Let's meet in front of the museum at three.
A cold wind was blowing from the mountains.
You should call your mother more often.
The new computer is much faster than the old one.
We had a wonderful time at the party last night.
Please write your name at the top of the page.
The baby fell asleep in her father's arms.
I don't think this is the right answer.
Five people were standing at the door.
Every morning he drinks a glass of cold water.
She learned to play the piano when she was young.
The road to the farm is narrow and dark.
Is there anything else that you need today?
In the winter, the lake is covered with ice.
""".strip().split("\n")
