"""gradistill: distil a fine-tuned transformer into a small one that decides for the same reasons."""
