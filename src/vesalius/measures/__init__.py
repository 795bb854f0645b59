"""What is measured and how sure it is: overlap, surfaces, and intervals over patients."""
