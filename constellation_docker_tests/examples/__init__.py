"""The committed examples agree with themselves and with what the product expects of a repository."""
