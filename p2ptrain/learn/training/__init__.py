"""One net in training, as fast as its device allows."""
