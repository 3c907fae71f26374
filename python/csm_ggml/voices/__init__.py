"""How somebody sounds: segments, voices, and the prompt rows that are made of them."""
