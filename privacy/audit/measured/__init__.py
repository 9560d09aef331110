"""Claims that rest on measurements: one module a claim, which makes it and checks it again."""
