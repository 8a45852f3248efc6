"""Sources: every address that params.yaml may name, fetched once into a content-addressed store."""
