"""Deterministic simulation of FSA1: one seed decides who takes part, what is lost, who crashes, and who cheats."""
