"""Sound: the value that speech comes as, and audio files."""
