"""Whether indexes hold what their sources say, and what of it must be stored once more."""
