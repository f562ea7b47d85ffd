"""Images in: sources, the one decoder, what can be read before training, and the two ways to feed a run."""
