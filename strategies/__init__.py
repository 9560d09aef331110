"""Algorithms as ``init`` and ``apply`` over frozen state, the models they train, and what may leave a site."""
