"""What the trouble of a gateway says of its channels: their verdicts, and the causes of their incidents."""
