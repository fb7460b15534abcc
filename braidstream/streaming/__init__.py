"""The streaming core: topics, transactions, the worker loop, and the join behind decisions. It knows no model."""
