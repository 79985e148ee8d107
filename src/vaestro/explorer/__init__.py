"""The explorer of a run: a web service with a page, on this computer.

- `values`: data in JSON and in binary messages.
- `worker`: the one thread that calls the model; requests to decode are batched.
- `engine`: what is asked of a run: data, codes, units, attributes, the map, samples, paths.
- `messages`: the types of requests and responses, from which OpenAPI is generated.
- `guard`: hosts, origins, sizes and headers of requests; problem details.
- `service`: the routes.
- `server`: the port, and the server's thread.
"""

from vaestro.explorer.server import Explorer, explore

__all__ = ["Explorer", "explore"]
