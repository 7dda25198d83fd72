"""Similarity to references or to a source; NaN for a sample without them."""
