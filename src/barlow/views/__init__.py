"""Augmented views: draws that have keys, ops that work on batches, the pipeline, and the sheet that shows them."""
