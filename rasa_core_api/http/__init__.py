"""HTTP for the API and for channels: routing, reading and sending JSON, errors, rights, origins."""
