"""Tuning: every loss by one rule, at equal effort (docs/protocol.md, "Tuning")."""
