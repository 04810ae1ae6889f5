"""What people said of labels: answers on disk, and what they say together."""
