"""Language quality of a text: sentiment, profanity, vocabulary, spelling, grammar, language."""
