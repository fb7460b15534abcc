"""What is wrong with a pipeline and its surroundings, and the command that mends it."""
