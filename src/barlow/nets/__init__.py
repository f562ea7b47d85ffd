"""Networks: encoders (images to features) and heads (features to embeddings), and what their batch norm sees."""
