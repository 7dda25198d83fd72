"""What a text says and how well: sentiment, manners, spelling, grammar, language."""
