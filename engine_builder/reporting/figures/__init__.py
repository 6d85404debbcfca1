"""The plots of a report: how they are drawn, those of whole engines, and those of layers."""
