"""Personal data in texts: found by form and check digits, counted by kind, taken out if asked; never told."""
