"""Attacks on what was released, and what their outcomes say about epsilon: pure functions of scores and counts."""
