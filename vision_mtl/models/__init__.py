"""The timm adapter, the decoders, the heads and the model that shares one backbone among them."""
