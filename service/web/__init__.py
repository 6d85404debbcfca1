"""The page of the server: what people see in a browser, and how it is served."""
