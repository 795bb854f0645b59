"""Outside formats, one per file: what comes in as a `Scan` or a `Refused`, and what goes out."""
