"""Conformance of a release path: tests that find wrong noise, clipping, sampling or keys. Pure: no files, no torch."""
