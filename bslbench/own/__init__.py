"""Interactions of the user's own: read, cleaned, split, catalogued; and given out again."""
