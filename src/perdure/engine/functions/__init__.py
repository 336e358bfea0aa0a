"""What users registered, and how it is called."""
