"""Reports for readers: one HTML page, one JSON file, one table. It draws what a task returned, whatever it is."""
