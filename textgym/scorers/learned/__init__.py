"""What a trained model says a text is worth: reward models, judges, preferences."""
