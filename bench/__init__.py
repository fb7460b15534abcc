"""Measures what the ride pipeline does on a real Kafka, beside what the broker and other frameworks do."""
