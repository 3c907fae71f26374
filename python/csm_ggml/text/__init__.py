"""Text: turns and their speakers, sentences, tokens."""
