"""Commands on servers: to serve, to deploy, and to see what they say."""
