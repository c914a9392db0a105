"""Sources, normalization, augmentation and batches: everything between a config and the first layer."""
