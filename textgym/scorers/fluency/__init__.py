"""Fluency under a language model, coherence with the prompt, and novelty among other texts."""
