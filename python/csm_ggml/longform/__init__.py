"""Long texts: pieces, reading, recording into a file."""
