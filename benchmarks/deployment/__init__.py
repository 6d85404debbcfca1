"""A large deployment, simulated: the product's own scheduling code, driven by a clock that events move on."""
