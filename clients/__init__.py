"""The site: reads its own records, trains, prices and declares what leaves."""
