"""How the rounding of weights and inputs shifts the channel means of layers, which bias correction takes off."""
