"""Differential privacy: declared events, plans, exact arithmetic on a public grid, and what they add up to."""
