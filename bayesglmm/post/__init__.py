"""What to ask of a fit: parameters, effects, means, contrasts, predictions, comparisons."""
