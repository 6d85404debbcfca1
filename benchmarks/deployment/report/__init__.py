"""What is told of simulations: figures, plots, the page."""
