"""What users do, as a stream: topics, the form of a message, and what keeps Redis true."""
