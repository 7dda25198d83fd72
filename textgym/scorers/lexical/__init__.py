"""What a text looks like: scorers that need nothing but the text."""
