"""The trusted core: accounting, keys, ledger, evidence. No flwr, no grpc, no torch; files only in ``store``."""

__version__ = "0.1.0"
