"""From scores to ranks to metrics."""
