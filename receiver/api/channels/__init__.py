"""Operations on channels: registered, checked, restarted, and their QR."""
