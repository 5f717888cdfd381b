"""The race: which loss for these data, within a budget of time (docs/protocol.md, "The race")."""
