"""What is done to pixels: resampling, preparation for a network, augmentation, duplicates."""
