"""Scenarios on real data, the in-process engine, the experimenter's view, benchmarks."""
