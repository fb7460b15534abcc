"""What a running worker tells the outside: whether it goes on, whether it is ready, and its metrics."""
