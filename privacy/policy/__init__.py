"""What a site or a coordinator allows beyond its charter: policies in Cedar, and a floor that none of them can lift."""
