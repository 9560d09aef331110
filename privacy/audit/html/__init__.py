"""The report as a page to read: drawn from the signed envelope alone."""
