"""Surface form of a text: scorers that need no model and no reference."""
