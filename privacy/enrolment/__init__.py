"""How a site joins: certificates, requests, and the bundle of public keys that it sends."""
