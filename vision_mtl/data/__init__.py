"""Sources of images, the decoded store, splits and batches. The only room where an image is uint8 HWC."""
