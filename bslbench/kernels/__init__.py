"""The primitives that everything is computed with."""
