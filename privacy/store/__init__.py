"""The durable things: the budget ledger and the run folder. The only place in ``privacy`` that touches files."""
