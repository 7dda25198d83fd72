"""How a text reads to a language model or beside other texts: fluency, coherence, novelty."""
