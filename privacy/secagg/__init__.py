"""FSA1, secure aggregation: the server learns the sum over the survivors and nothing else (docs/protocol.md)."""
