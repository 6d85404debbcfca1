"""Folding of constant factors and offsets into the weights and biases of the layers around them."""
