"""How a server on loopback serves: uploads, status polls beside a running job, and answers meanwhile."""
