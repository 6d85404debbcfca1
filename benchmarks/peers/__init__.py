"""What onnxruntime's own quantizers give in one line, beside whole jobs on the same networks, data and clock."""
