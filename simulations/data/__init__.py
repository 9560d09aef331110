"""The rows of scenarios: where they come from, and how they become the sites' own."""
