"""Scores of several encoders beside each other, and beside what papers print."""
