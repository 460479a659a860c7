"""One reader per motion format; all of them yield `SourceMotion`."""
