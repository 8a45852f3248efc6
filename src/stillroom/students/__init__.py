"""Small models that learn the teacher's outputs: families, initialisation, losses, training."""
