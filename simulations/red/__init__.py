"""Runs that are broken on purpose, and what finds each: an audit that was never seen to find anything shows nothing."""
