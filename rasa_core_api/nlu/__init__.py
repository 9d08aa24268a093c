"""Embedded language understanding: training data, features, classifiers, entities, models."""
