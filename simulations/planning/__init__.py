"""`collegium plan`: what a model costs, where it can be cut, who can hold what."""
