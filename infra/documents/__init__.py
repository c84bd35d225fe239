"""Rows as documents of an index: the text that stands for one, its chunks, the columns it keeps."""
