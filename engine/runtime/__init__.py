"""What keeps a process answering: pauses watched, logs written by a thread, long work in another process."""
