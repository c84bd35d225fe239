"""The process that takes commands and carries them out."""
