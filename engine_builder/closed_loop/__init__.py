"""Models with a state, run in closed loop: what a step gives of its state is what the next step is given."""
