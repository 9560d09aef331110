"""The charter: what all sites have agreed to, signed by their officers. Pure: no files, no clock."""
