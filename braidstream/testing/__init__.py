"""For tests of what is built on this package: an in-memory broker, and kits that run a consumer or a policy on it."""
