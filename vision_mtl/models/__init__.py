"""The timm adapter, the decoders, the heads and the shared model that combines them."""
