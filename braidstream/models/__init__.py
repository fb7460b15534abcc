"""The models core: features, training, model folders and scoring. It imports nothing of Kafka."""
