"""Augmented views: keyed draws, batched ops, the pipeline that runs them, and the sheet a person looks at."""
