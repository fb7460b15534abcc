"""Faults on real Kafka, and the checker that says whether anything was lost, done twice or wrong."""
