"""How near a text is to references, or to its source; a sample without them scores NaN: the scorer does not apply."""
