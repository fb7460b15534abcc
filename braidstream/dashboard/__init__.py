"""What a pipeline is doing at this moment, as people watch it on a terminal: what is shown, and how."""
