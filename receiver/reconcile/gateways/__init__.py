"""What the trouble of a gateway says of its channels, and the keys that it refuses."""
