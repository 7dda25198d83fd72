"""Correctness, for answers that can be verified."""
