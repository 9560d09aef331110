"""Thin, typed use of ``cryptography``."""
