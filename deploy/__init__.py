"""What an operator runs the engine with, and a local Kafka for tests."""
