"""What goes into each stage and what comes out: frozen values that have one JSON form (``calibration.codec``)."""
