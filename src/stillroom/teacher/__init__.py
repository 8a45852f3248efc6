"""The model that sets the quality: load, fine-tune, calibrate, describe."""
