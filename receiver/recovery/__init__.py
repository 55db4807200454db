"""What brings a channel back: orders to its gateway, and a QR for a scan."""
