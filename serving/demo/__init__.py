"""The small Korean demo model: corpus, training script, weights, evaluation. Not a model for real use."""
