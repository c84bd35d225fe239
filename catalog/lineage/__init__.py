"""What came from what: edges, walks along them, and their pictures."""
