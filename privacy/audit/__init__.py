"""Claims, signed reports, and a verifier that believes nobody."""
