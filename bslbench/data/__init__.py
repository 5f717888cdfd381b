"""Interactions: reading, splitting, making them."""
