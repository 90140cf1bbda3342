"""A trained model as files that need no vision_mtl."""
