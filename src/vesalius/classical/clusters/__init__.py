"""Groups among cases without labels, found only where they are stabler than chance, and how unusual a case is."""
