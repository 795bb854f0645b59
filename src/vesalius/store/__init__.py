"""The cohort folder, the pixel cache and the model bundle."""
