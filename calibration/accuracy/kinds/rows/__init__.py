"""Detections whose boxes, scores and classes are outputs of their own: which belong together, and how they are judged together."""
