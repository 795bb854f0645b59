"""The nouns and the errors: numpy and the standard library only, no input or output."""
