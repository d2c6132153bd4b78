"""The towers of CLIP models: weights of others to our own forward, and texts to embeddings."""
