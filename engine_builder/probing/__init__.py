"""How parts of the stages that probe the float model are measured with a given provider."""
