"""Whether a text is right, where that can be checked."""
