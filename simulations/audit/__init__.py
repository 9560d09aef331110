"""Attacks on copies of a simulated run: what the audit measures beside what the ledgers prove."""
