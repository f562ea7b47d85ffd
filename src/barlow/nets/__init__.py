"""Networks: encoders (images to features) and projectors (features to embeddings)."""
