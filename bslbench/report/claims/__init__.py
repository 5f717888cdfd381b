"""The claims of the paper as tables: each could also come out against it."""
